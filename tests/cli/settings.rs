//! Where settings come from: flag over environment over file.

use anyhow::Result;
use quillback_harness::{ROOT_PASSWORD, Server};

use crate::support::Shell;

#[tokio::test]
async fn an_unknown_key_is_refused_with_its_line() -> Result<()> {
    let shell = Shell::new()?;
    let file = shell.path().join("quillback.toml");
    std::fs::write(
        &file,
        "archive = \"file:///a\"\n\nservers = \"mysql://root@h\"\n",
    )?;
    shell.run(&["status"]).await?.is(
        2,
        "",
        "error: quillback.toml, line 3: unknown field `servers`, expected one of `archive`, `server`, `password_file`\n  \
         try: the keys archive, server and password_file",
    );
    std::fs::write(&file, "archive = \n")?;
    let said = shell.run(&["status"]).await?;
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    assert!(
        said.err.starts_with("error: quillback.toml, line 1: "),
        "{}",
        said.err
    );
    shell.run(&["status", "--config", "none.toml"]).await?.is(
        2,
        "",
        "error: cannot read none.toml: No such file or directory (os error 2)\n  \
         try: --config with a file that is there",
    );
    Ok(())
}

#[tokio::test]
async fn a_flag_is_over_the_environment_is_over_the_file() -> Result<()> {
    let shell = Shell::new()?;
    std::fs::write(
        shell.path().join("quillback.toml"),
        format!("archive = \"{}\"\n", shell.folder_url("from-file")),
    )?;
    let said = shell.run(&["init"]).await?;
    assert_eq!(said.out, "made an archive at file://<folder>/from-file");
    let env = shell.folder_url("from-env");
    let flag = shell.folder_url("from-flag");
    let shell = shell.env("QUILLBACK_ARCHIVE", env);
    let said = shell.run(&["init"]).await?;
    assert_eq!(said.out, "made an archive at file://<folder>/from-env");
    let said = shell.run(&["--archive", &flag, "init"]).await?;
    assert_eq!(said.out, "made an archive at file://<folder>/from-flag");
    let said = shell.run(&["init", "--archive", &flag]).await?;
    assert_eq!(said.code, 23, "{}", said.err);
    Ok(())
}

#[tokio::test]
async fn a_password_comes_from_a_file_or_the_environment() -> Result<()> {
    let server = Server::start().await?;
    let url = server.url_without_password();
    let fresh = || -> Result<Shell> { Ok(Shell::new()?.word(server.address(), "<server>")) };

    // From a file, with or without its line's end.
    for ending in ["", "\n", "\r\n"] {
        let shell = fresh()?;
        let secret = shell.path().join("secret");
        std::fs::write(&secret, format!("{ROOT_PASSWORD}{ending}"))?;
        let shell = shell
            .env("QUILLBACK_PASSWORD_FILE", secret.display().to_string())
            .env("QUILLBACK_SERVER", url.clone());
        let archive = shell.archive();
        shell.run(&["init", "--archive", &archive]).await?;
        let said = shell
            .run(&["stream", "--dry-run", "--archive", &archive])
            .await?;
        assert_eq!(said.code, 0, "{ending:?}: {}", said.err);
    }
    // From the settings' file, beside the server.
    let shell = fresh()?;
    std::fs::write(shell.path().join("secret"), ROOT_PASSWORD)?;
    let archive = shell.archive();
    std::fs::write(
        shell.path().join("quillback.toml"),
        format!("archive = \"{archive}\"\nserver = [\"{url}\"]\npassword_file = \"secret\"\n"),
    )?;
    shell.run(&["init"]).await?;
    let said = shell.run(&["stream", "--dry-run"]).await?;
    assert_eq!(said.code, 0, "{}", said.err);

    // A wrong one in the environment goes before the file.
    let shell = shell.env("QUILLBACK_PASSWORD", "not-this-one");
    let said = shell.run(&["stream", "--dry-run"]).await?;
    assert_eq!(said.code, 12, "{}", said.err);
    assert!(!said.err.contains("not-this-one"), "{}", said.err);

    // A file that is not there is named, before anything is tried.
    let shell = fresh()?.env("QUILLBACK_PASSWORD_FILE", "/no/such/file");
    shell.run(&["stream", "--archive", &archive, "--server", &url]).await?.is(
        2,
        "",
        "error: cannot read the password file /no/such/file: No such file or directory (os error 2)\n  \
         try: a file that this user can read and that holds only the password",
    );
    Ok(())
}
