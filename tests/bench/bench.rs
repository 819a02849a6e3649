//! What flowctl costs, each figure beside its floor or its peer of the same run: `cargo bench`. Prints the tables
//! of docs/performance.md. Needs root; everything happens in network namespaces that vanish. With `--quick` it is
//! shorter and noisier; `cargo bench -- daemon` makes one of the tables `tick`, `packet`, `probe`, `daemon`,
//! `conntrack` and `drilling`; the last two take `--flows=N`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a benchmark reads clocks, runs its peers, and a panic is its report"
)]

mod conntrack;
mod daemon;
mod drilling;
mod packet;
mod probe;
mod setup;
mod tick;

use std::process::ExitCode;

use flowctl::lab::Namespace;

/// A name, and what measures and prints it.
type Table = (&'static str, fn(bool));

fn main() -> ExitCode {
    if let Err(error) = Namespace::new("probe") {
        eprintln!("the benchmarks need root: {error}");
        return ExitCode::FAILURE;
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let tables: [Table; 6] = [
        ("tick", tick::run),
        ("packet", packet::run),
        ("probe", probe::run),
        ("daemon", daemon::run),
        ("conntrack", conntrack::run),
        ("drilling", drilling::run),
    ];
    for (name, run) in tables {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            run(quick);
        }
    }
    ExitCode::SUCCESS
}
