//! The `quillback` program: hands its arguments to [`quillback::cli`].

fn main() {}
