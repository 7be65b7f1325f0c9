//! The `metad` program: everything is in the library.

fn main() -> std::process::ExitCode {
    metad::cli::main()
}
