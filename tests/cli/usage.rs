//! What makes no sense is refused at once, with what to write instead.

use anyhow::Result;

use crate::support::Shell;

#[tokio::test]
async fn the_help_is_the_contract() -> Result<()> {
    let shell = Shell::new()?;
    let said = shell.run(&["--version"]).await?;
    said.is(0, "quillback <version>", "");
    let help = shell.run(&["--help"]).await?;
    help.is(0, include_str!("help.txt"), "");
    let bare = shell.run(&[]).await?;
    assert_eq!(bare.code, 2);
    assert_eq!(bare.out, "");
    let first = |text: &str| text.lines().next().map(ToOwned::to_owned);
    assert_eq!(first(&bare.err), first(&help.out));
    for command in [
        "init", "snapshot", "stream", "status", "log", "mark", "restore", "reseed",
    ] {
        let said = shell.run(&[command, "--help"]).await?;
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{command}");
        assert!(said.out.contains("Usage: quillback"), "{}", said.out);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_missing_is_named() -> Result<()> {
    let shell = Shell::new()?;
    for command in ["init", "status", "log"] {
        shell.run(&[command]).await?.is(
            2,
            "",
            "error: no archive is named\n  \
             try: --archive file:///var/backups/mysql or QUILLBACK_ARCHIVE=s3://bucket/prefix",
        );
    }
    let archive = shell.archive();
    for command in ["snapshot", "stream"] {
        shell.run(&[command, "--archive", &archive]).await?.is(
            2,
            "",
            "error: no server is named\n  \
             try: --server mysql://user@host:3306 or QUILLBACK_SERVER (several: comma-separated)",
        );
    }
    let said = shell
        .run(&["restore", "--archive", &archive, "--until", "latest"])
        .await?;
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    assert!(said.err.contains("--to <SERVER>"), "{}", said.err);
    let said = shell
        .run(&["restore", "--archive", &archive, "--to", "mysql://root@h"])
        .await?;
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    assert!(said.err.contains("--until"), "{}", said.err);
    Ok(())
}

#[tokio::test]
async fn an_archive_s_url_is_understood_or_explained() -> Result<()> {
    let shell = Shell::new()?;
    for (url, reason) in [
        (
            "ftp://host/dir",
            "unknown kind of store; write file:///folder or s3://bucket/prefix",
        ),
        (
            "/var/backups",
            "not a URL; write file:///folder or s3://bucket/prefix",
        ),
        (
            "file://backups",
            "a folder needs its full path: file:///folder",
        ),
        (
            "file:backups",
            "a folder needs its full path: file:///folder",
        ),
        ("s3://", "no valid bucket is named: s3://bucket/prefix"),
    ] {
        shell.run(&["init", "--archive", url]).await?.is(
            2,
            "",
            &format!("error: {url}: {reason}\n  try: file:///folder or s3://bucket/prefix"),
        );
    }
    Ok(())
}

/// Every user of the machine can read arguments; what is printed ends in logs.
#[tokio::test]
async fn a_password_in_the_arguments_is_refused_and_not_repeated() -> Result<()> {
    let shell = Shell::new()?;
    let archive = shell.archive();
    let url = "mysql://root:root-for-tests@127.0.0.1:3306";
    let flag = format!("--server={url}");
    let twice = format!("mysql://a@b,{url}");
    for arguments in [
        &["status", "--archive", &archive, "--server", url][..],
        &["status", "--archive", &archive, &flag],
        &["stream", "--archive", &archive, "--server", &twice],
        &[
            "restore",
            "--archive",
            &archive,
            "--until",
            "latest",
            "--to",
            url,
        ],
        // Where it does not even belong.
        &["status", url],
        &["restore", "--until", url, "--to", "mysql://root@h"],
        &["restore", "--before-gtid", url, "--to", "mysql://root@h"],
        &[url],
        &["--no-such-flag", url],
    ] {
        shell.run(arguments).await?.is(
            2,
            "",
            "error: a server URL in the arguments holds a password, which others can read there\n  \
             try: mysql://user@host:port with the password in QUILLBACK_PASSWORD or \
             QUILLBACK_PASSWORD_FILE (a restore's target: QUILLBACK_TO_PASSWORD)",
        );
    }
    Ok(())
}

#[tokio::test]
async fn targets_are_understood_or_explained() -> Result<()> {
    let shell = Shell::new()?;
    let archive = shell.archive();
    let restore = |more: &[&'static str]| {
        [
            &[
                "restore",
                "--archive",
                &archive,
                "--to",
                "mysql://root@127.0.0.1:1",
            ],
            more,
        ]
        .concat()
    };
    shell
        .run(&restore(&["--until", "2026-11-20 14:30:00"]))
        .await?
        .is(
            2,
            "",
            "error: \"2026-11-20 14:30:00\" has no offset, so it is not known which moment it means; \
             write 2026-11-20T14:30:00Z for UTC or 2026-11-20T14:30:00+02:00\n  \
             try: --until 2026-11-20T14:30:00Z",
        );
    shell
        .run(&restore(&["--until", "2026-11-20T14:30"]))
        .await?
        .is(
            2,
            "",
            "error: \"2026-11-20T14:30\" has no offset, so it is not known which moment it means; \
             write 2026-11-20T14:30:00Z for UTC or 2026-11-20T14:30:00+02:00\n  \
             try: --until 2026-11-20T14:30:00Z",
        );
    shell.run(&restore(&["--until", "yesterday"])).await?.is(
        2,
        "",
        "error: \"yesterday\" is no time; write it as 2026-11-20T14:30:00Z\n  \
         try: --until 2026-11-20T14:30:00Z",
    );
    for set in ["nonsense", "3e11fa47-71ca-11e1-9e33-c80aa9429562:0"] {
        let said = shell
            .run(&[&restore(&["--until-gtid"])[..], &[set]].concat())
            .await?;
        assert_eq!(
            (said.code, said.out.as_str()),
            (2, ""),
            "{set:?}: {}",
            said.err
        );
        assert!(said.err.contains("--until-gtid <SET>"), "{}", said.err);
    }
    // What MySQL takes for a set of nothing.
    for set in ["", "3e11fa47-71ca-11e1-9e33-c80aa9429562:5-3"] {
        let arguments = [&restore(&["--until-gtid"])[..], &[set]].concat();
        shell.run(&arguments).await?.is(
            2,
            "",
            "error: the GTID set of --until-gtid is empty\n  \
             try: --until-gtid <uuid>:1-42",
        );
    }
    let said = shell
        .run(&restore(&[
            "--until",
            "latest",
            "--before-gtid",
            "3e11fa47-71ca-11e1-9e33-c80aa9429562:5",
        ]))
        .await?;
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    assert!(said.err.contains("cannot be used with"), "{}", said.err);
    Ok(())
}
