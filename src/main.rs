//! The `quillback` program: hands its arguments to [`quillback::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    quillback::cli::main()
}
