//! What flowctl costs, each figure beside its floor or its peer of the same run: `cargo bench`. Prints the tables
//! of docs/performance.md. Needs root; everything happens in network namespaces that vanish. With `--quick` it is
//! shorter and noisier.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a benchmark reads clocks, runs its peers, and a panic is its report"
)]

mod daemon;
mod packet;
mod setup;
mod tick;

use std::process::ExitCode;

use flowctl::lab::Namespace;

fn main() -> ExitCode {
    if let Err(error) = Namespace::new("probe") {
        eprintln!("the benchmarks need root: {error}");
        return ExitCode::FAILURE;
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    tick::run(quick);
    packet::run(quick);
    daemon::run(quick);
    ExitCode::SUCCESS
}
