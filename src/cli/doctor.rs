//! `flowctl doctor`: everything that makes numbers wrong or incomplete, each with its remedy.

use std::collections::HashSet;
use std::time::Duration;

use super::exit::ExitCode;
use super::format::foreign;
use super::style::{Paint, Style};
use super::{DoctorArgs, Options, configuration, output};
use crate::config::source::{Source, Sourced};
use crate::config::{self, Config, Connected, Format};
use crate::health::{self, StaticRules};
use crate::kernel::error::KernelError;
use crate::kernel::facts;
use crate::kernel::network::NetworkReader;
use crate::kernel::nftables::Nftables;
use crate::names::Names;
use crate::plan;
use crate::report::{Health, Report, Severity};
use crate::sink::ask::ask;
use crate::units::ExistingCounter;

/// For a server that tells names, as long as it may take.
const NAMES_PATIENCE: Duration = Duration::from_secs(12);

/// Examines this network namespace, and asks the daemon if one answers.
pub fn run(args: &DoctorArgs, options: &Options) -> ExitCode {
    let config = match configuration::look(options) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let socket = options.socket_path(config.as_ref());
    let (config, finding) = match config {
        None if options.config_path().is_none() => without_file(&options.source()),
        found => (found, None),
    };
    // No configuration at all is a configuration without counters.
    let Some(config) = config.or_else(|| config::parse("", Format::Toml).ok()) else {
        return ExitCode::Failure;
    };
    let mut findings = match examine(&config) {
        Ok(findings) => findings,
        Err(error) if error.is_privilege() => {
            output::complain(format_args!(
                "{error}; CAP_NET_ADMIN is missing: run it as root"
            ));
            return ExitCode::MissingPrivilege;
        }
        Err(error) => {
            output::complain(error);
            return ExitCode::Failure;
        }
    };
    findings.extend(finding);
    findings.extend(names(&config));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    // What only the daemon can know. That none answers is said by the finding that the table is missing.
    let report = ask(&socket, "status")
        .ok()
        .and_then(|answer| serde_json::from_str::<Report>(&answer).ok());
    for known in report.into_iter().flat_map(|report| report.health) {
        if !findings.iter().any(|finding| finding.code == known.code) {
            findings.push(known);
        }
    }
    if args.json {
        return output::print(&format!("{}\n", serde_json::json!({ "health": findings })));
    }
    output::print(&render(&findings, &options.style()))
}

/// What is counted where there is no file, and what is to be said about it.
fn without_file(source: &Source) -> (Option<Config>, Option<Health>) {
    match source.read() {
        Ok(Sourced { config, note, .. }) => {
            let fix = "nothing to do where counters are enough; thresholds need a configuration";
            let finding =
                note.map(|note| health::entry("no_configuration", Severity::Info, note, fix));
            (Some(config), finding)
        }
        Err(error) => {
            let fix = "set up the network, or write a configuration";
            let message = error.to_string();
            let finding = health::entry("nothing_to_count", Severity::Error, message, fix);
            (None, Some(finding))
        }
    }
}

fn examine(config: &Config) -> Result<Vec<Health>, KernelError> {
    let network = NetworkReader::open()?.read()?;
    let config = config.resolved(&Connected::new(&network.links, &network.addresses));
    let mut nftables = Nftables::open()?;
    let mut facts = facts::gather(&mut nftables, &config.table.name, &network.links)?;
    facts.static_rules = static_rules(&mut nftables, &config)?;
    let wanted: Vec<&ExistingCounter> = (config.counters.iter())
        .filter_map(|counter| counter.existing.as_ref())
        .collect();
    if !wanted.is_empty() {
        let known: HashSet<ExistingCounter> = nftables.named_counters()?.into_iter().collect();
        let missing = wanted
            .into_iter()
            .filter(|counter| !known.contains(counter));
        facts.missing_existing = missing.cloned().collect();
    }
    Ok(health::judge(&config, &facts))
}

/// Of a table that is loaded with the system's ruleset, by the configuration or as it is found.
fn static_rules(
    nftables: &mut Nftables,
    config: &Config,
) -> Result<Option<StaticRules>, KernelError> {
    if !facts::is_static(nftables, &config.table)? {
        return Ok(None);
    }
    let standing = facts::standing(nftables, &plan::compile(config))?;
    Ok(Some(StaticRules {
        standing,
        configured: config.table.is_static,
    }))
}

/// One entry for all of them: drilldowns go on without these names.
fn names(config: &Config) -> Option<Health> {
    if !config.wants_conntrack() {
        return None;
    }
    let unreadable = Names::new(config).refresh(NAMES_PATIENCE);
    let fix = "make it readable, or write under names.leases what is to be read; until then hosts go without these names";
    (!unreadable.is_empty()).then(|| {
        let message = unreadable.join("; ");
        health::entry("names_unreadable", Severity::Warning, message, fix)
    })
}

fn render(findings: &[Health], style: &Style) -> String {
    if findings.is_empty() {
        return "Nothing found that makes numbers wrong or incomplete.\n".to_owned();
    }
    let mut text = String::new();
    for finding in findings {
        let (word, paint) = match finding.severity {
            Severity::Error => ("error  ", Paint::Alarm),
            Severity::Warning => ("warning", Paint::Warn),
            Severity::Info => ("info   ", Paint::Faint),
        };
        let message = foreign(&finding.message);
        let fix = foreign(&finding.fix);
        text.push_str(&format!(
            "{}  {}: {message}\n         fix: {fix}\n",
            style.paint(paint, word),
            finding.code
        ));
    }
    text
}
