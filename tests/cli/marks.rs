//! `quillback mark`: made, shown, restored to; and what is refused.

use anyhow::Result;
use quillback_harness::Server;

use crate::support::Shell;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_is_made_once_and_restored_to() -> Result<()> {
    let (source, target) = (Server::start().await?, Server::start().await?);
    source.exec("CREATE DATABASE shop").await?;
    let shell = Shell::new()?.with_server(&source, "source").await?;
    let archive = shell.archive();
    let shell = shell
        .with_server(&target, "target")
        .await?
        .env("QUILLBACK_ARCHIVE", archive)
        .env("QUILLBACK_SERVER", source.url_without_password());
    shell.run(&["init"]).await?;
    shell.run(&["mark", "--list"]).await?.is(0, "no marks", "");
    assert_eq!(shell.run(&["snapshot", "--allow-primary"]).await?.code, 0);
    source.exec("CREATE DATABASE later").await?;
    let shown = "<time> before-deploy branch 1 <source> (MySQL <mysql>)\n  \
                 <source uuid>:1-2\n  \
                 release 71";
    let mark = ["mark", "before-deploy", "--note", "release 71"];
    shell.run(&[&mark[..], &["--dry-run"]].concat()).await?.is(
        0,
        &format!("{shown}\nnothing was changed (--dry-run)"),
        "",
    );
    shell.run(&mark).await?.is(
        0,
        &format!(
            "{shown}\n\
             restore to it with: quillback restore --until-mark before-deploy --to mysql://user@new-server:3306"
        ),
        "",
    );
    shell.run(&mark).await?.is(
        23,
        "",
        "error: there is a mark before-deploy already (made <time>)\n  \
         try: another name: a mark is never changed (quillback mark --list)",
    );
    shell.run(&["mark", "--list"]).await?.is(0, shown, "");
    let (code, list) = shell.json(&["mark", "--list"]).await?;
    assert_eq!(code, 0);
    assert_eq!(list["marks"][0]["note"], "release 71");

    // Not archived yet: told, and with --wait it would be waited for.
    let to = target.url_without_password();
    let restore = ["restore", "--until-mark", "before-deploy", "--to", &to];
    let said = shell.run(&restore).await?;
    assert_eq!(said.code, 20, "{}", said.err);
    assert!(said.err.contains("--wait"), "{}", said.err);
    shell.run(&["stream", "--once"]).await?;
    source.exec("CREATE DATABASE latest").await?;
    shell.run(&["stream", "--once"]).await?;
    let said = shell.run(&restore).await?;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.out
            .starts_with("restored mark before-deploy (<time>) on <target>"),
        "{}",
        said.out
    );
    let schemas: Vec<String> = target.query("SHOW DATABASES LIKE 'late%'").await?;
    assert_eq!(schemas, ["later"]);

    shell
        .run(&["restore", "--until-mark", "before", "--to", &to])
        .await?
        .is(
            20,
            "",
            "error: the archive has no mark before\n  \
             try: one of the archive's marks: before-deploy",
        );
    for wrong in ["../x", "a b", ""] {
        let said = shell.run(&["mark", wrong]).await?;
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{wrong:?}");
        assert!(said.err.contains("is no name of a mark"), "{}", said.err);
    }
    let said = shell.run(&["mark"]).await?;
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    Ok(())
}

/// What a restore is asked must make sense.
#[tokio::test]
async fn a_restore_needs_a_target_or_something_begun() -> Result<()> {
    let shell = Shell::new()?;
    let to = ["restore", "--to", "mysql://root@h"];
    shell.run(&to).await?.is(
        2,
        "",
        "error: no target is given\n  \
         try: --until 2026-11-20T14:30:00Z, --until latest, --until-mark NAME, --until-gtid SET or \
         --before-gtid GTID",
    );
    for (words, said) in [
        (
            &["--until", "latest", "--wipe", "h"][..],
            "--wipe h names no server in full",
        ),
        (&["--until", "2026-11-20 14:30:00"], "has no offset"),
        (
            &["--until", "latest", "--until-mark", "m"],
            "cannot be used with",
        ),
        (&["--until-gtid", ""], "GTID set of --until-gtid is empty"),
    ] {
        let run = shell.run(&[&to[..], words].concat()).await?;
        assert_eq!(
            (run.code, run.out.as_str()),
            (2, ""),
            "{words:?}: {}",
            run.err
        );
        assert!(run.err.contains(said), "{words:?}: {}", run.err);
    }
    Ok(())
}
