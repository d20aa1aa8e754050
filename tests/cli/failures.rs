//! Failures: what, why, what to try, and the exit code that a script can lean on.

use anyhow::Result;
use quillback_harness::Server;

use crate::support::Shell;

#[tokio::test]
async fn a_place_without_an_archive() -> Result<()> {
    let shell = Shell::new()?;
    let archive = shell.archive();
    let nothing = "error: file://<folder>/archive holds no archive\n  \
                   try: quillback init, or another --archive";
    for arguments in [
        &["status"][..],
        &["log"],
        &["stream", "--server", "mysql://root@127.0.0.1:1"],
        &["snapshot", "--server", "mysql://root@127.0.0.1:1"],
        &[
            "restore",
            "--until",
            "latest",
            "--to",
            "mysql://root@127.0.0.1:1",
        ],
    ] {
        let said = shell
            .run(&[arguments, &["--archive", &archive]].concat())
            .await?;
        said.is(10, "", nothing);
    }
    assert!(!shell.path().join("archive").exists(), "nothing was made");
    Ok(())
}

#[tokio::test]
async fn a_second_init_is_refused() -> Result<()> {
    let shell = Shell::new()?;
    let archive = shell.archive();
    let init = ["init", "--archive", &archive];
    shell.run(&[&init[..], &["--dry-run"]].concat()).await?.is(
        0,
        "would make an archive at file://<folder>/archive",
        "",
    );
    assert!(!shell.path().join("archive").exists(), "nothing was made");
    shell.run(&init).await?.is(
        0,
        "made an archive at file://<folder>/archive",
        "next: quillback stream (in the background), then quillback snapshot",
    );
    let exists = "error: file://<folder>/archive holds an archive already (made <time>)\n  \
                  try: this archive as it is, or another place for a new one";
    shell.run(&init).await?.is(23, "", exists);
    shell
        .run(&[&init[..], &["--dry-run"]].concat())
        .await?
        .is(23, "", exists);
    let quiet = shell.folder_url("quiet");
    shell.run(&["-q", "init", "--archive", &quiet]).await?.is(
        0,
        "made an archive at file://<folder>/quiet",
        "",
    );
    Ok(())
}

#[tokio::test]
async fn an_empty_archive_is_not_healthy() -> Result<()> {
    let shell = Shell::new()?;
    let archive = shell.archive();
    shell.run(&["init", "--archive", &archive]).await?;
    shell.run(&["status", "--archive", &archive]).await?.is(
        20,
        "NOTHING RESTORABLE\n\
         archive file://<folder>/archive (branch 1)\n\
         snapshots none\n\
         log none\n\
         warning there is no snapshot, so nothing can be restored",
        "",
    );
    let (code, status) = shell.json(&["status", "--archive", &archive]).await?;
    assert_eq!(code, 20);
    assert_eq!(status["restorable"], false);
    assert_eq!(status["exit_code"], 20);
    Ok(())
}

#[tokio::test]
async fn a_server_that_refuses_or_is_down() -> Result<()> {
    let server = Server::start().await?;
    let url = server.url_without_password();
    let shell = Shell::new()?.word(server.address(), "<server>");
    let archive = shell.archive();
    let shell = shell
        .env("QUILLBACK_ARCHIVE", archive)
        .env("QUILLBACK_SERVER", url.clone())
        .env("QUILLBACK_PASSWORD", "not-the-right-one");
    shell.run(&["init"]).await?;
    let commands = [
        &["snapshot"][..],
        &["stream"],
        &["stream", "--once"],
        &["stream", "--dry-run"],
    ];
    for command in commands {
        let said = shell.run(command).await?;
        said.is(
            12,
            "",
            "error: request to <server> failed\n  \
             because: server error 1045 (28000): Access denied for user 'root'@'127.0.0.1' (using password: YES)\n  \
             try: the user and QUILLBACK_PASSWORD, its grants, and ?ssl-mode= of the server's URL",
        );
    }
    // A server answers to unknown names in a way that tells nothing; the class is the same.
    for user in ["nobody", "someone", "who", "x", "y", "z"] {
        let url = server.url_for(user, "").replace(":@", "@");
        let said = shell
            .run(&["stream", "--dry-run", "--server", &url])
            .await?;
        assert_eq!((said.code, said.out.as_str()), (12, ""), "{}", said.err);
    }
    // Status is asked most when servers are gone: it answers all the same.
    let said = shell.run(&["status"]).await?;
    assert_eq!(said.code, 20);
    assert!(
        said.out.contains("warning no server could be asked"),
        "{}",
        said.out
    );

    server.kill9().await?;
    for command in commands {
        shell.run(command).await?.is(
            30,
            "",
            "error: request to <server> failed\n  \
             because: the connection failed\n  \
             because: Connection refused (os error 111)\n  \
             try: again once the server can be reached",
        );
    }
    Ok(())
}
