//! `restore --tables` from the command line: what makes no sense is refused with what to write.

use anyhow::Result;

use crate::support::Shell;

#[tokio::test]
async fn what_tables_alone_cannot_have_is_refused_and_why() -> Result<()> {
    let shell = Shell::new()?;
    let archive = shell.archive();
    let with = |more: &[&str]| {
        let mut words = vec!["restore", "--archive", &archive, "--to", "mysql://root@h:1"];
        words.extend(["--until", "latest"]);
        words.extend(more);
        words.into_iter().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    for (more, text) in [
        (
            &["--into-schema", "x"][..],
            "--into-schema goes with --tables",
        ),
        (
            &["--tables", "d.t", "--wipe", "h:1"],
            "--wipe makes no sense with --tables",
        ),
        (
            &["--tables", "d.t", "--open"],
            "--open makes no sense with --tables",
        ),
        (
            &["--tables", "d.t", "--keep-redo-log"],
            "--keep-redo-log makes no sense",
        ),
        (
            &["--tables", "d.t", "--serve-listen", "127.0.0.1:0"],
            "--serve-listen makes no sense",
        ),
        (
            &["--tables", "d.t", "--serve-advertise", "h:1"],
            "--serve-advertise makes no sense",
        ),
        (
            &["--tables", "d.t", "--replay", "replication"],
            "--replay replication makes no sense",
        ),
        (
            &["--tables", "d.t", "--into-schema", ""],
            "a schema's name has",
        ),
        (
            &["--tables", "d.t", "--into-schema", "MySQL"],
            "of the server's own",
        ),
        (
            &["--tables", "d.t", "--into-schema", "quillback_restore"],
            "of the server's own",
        ),
        (&["--tables", "d.t.u"], "is no pattern"),
        (&["--tables", ".t"], "is no pattern"),
    ] {
        let words = with(more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = shell.run(&words).await?;
        assert_eq!(
            (said.code, said.out.as_str()),
            (2, ""),
            "{more:?}: {}",
            said.err
        );
        assert!(said.err.contains(text), "{more:?}: {}", said.err);
    }
    Ok(())
}

#[tokio::test]
async fn the_grants_for_tables_are_no_more_than_that() -> Result<()> {
    let shell = Shell::new()?;
    let said = shell.run(&["grants", "--for", "restore-tables"]).await?;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("REPLICATION_APPLIER"), "{}", said.out);
    assert!(!said.out.contains("ALL PRIVILEGES"), "{}", said.out);
    assert!(!said.out.contains("GRANT OPTION"), "{}", said.out);
    Ok(())
}
