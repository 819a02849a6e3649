//! What was found as a configuration to keep: complete as it is, with the obvious next steps as lines that only lack
//! the taking off of their `#`. Comments have a space after it.

use std::fmt::Display;

use super::discover::{Discovery, FoundInterface, FoundSubnet};

const HEAD: &str = "\
# What flowctl found on this machine: counters only. Keep it as /etc/flowctl/flowctl.toml and change what you know
# better. `flowctl check` names mistakes, `flowctl plan` shows what each counter will see.
";
const CAPACITY: &str = "\
# How much the line carries, which nothing on this machine knows:
#capacity = { in = \"500Mbit/s\", out = \"50Mbit/s\" }
";
/// Longer lists are broken into lines.
const LINE_MAX: usize = 100;

impl Discovery {
    /// TOML, ready to keep.
    pub fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        if self.wan().is_none() {
            text += "# There is no default route: which device is the way out is not known, and none is called wan for being it.\n";
        }
        for (position, interface) in self.interfaces.iter().enumerate() {
            text += &section(interface);
            if position == 0 {
                text += CAPACITY;
            }
        }
        if !self.subnets.is_empty() {
            text += "\n[subnets]\n";
            text.extend(self.subnets.iter().map(line));
        }
        if let Some(first) = self.interfaces.first() {
            text += &threshold(first);
        }
        text + &self.reasons()
    }

    /// In a few words.
    pub fn summary(&self) -> String {
        let count = |count: usize, noun: &str| match count {
            1 => format!("1 {noun}"),
            _ => format!("{count} {noun}s"),
        };
        let subnets = count(self.subnets.len(), "subnet");
        let Some(wan) = self.wan() else {
            let interfaces = count(self.interfaces.len(), "interface");
            return format!(
                "{interfaces} and {subnets}, no way out since there is no default route"
            );
        };
        let devices: Vec<&str> = wan.devices.iter().map(|device| device.as_str()).collect();
        let others = count(self.interfaces.len() - 1, "other interface");
        format!("wan ({}), {others} and {subnets}", devices.join(", "))
    }

    fn reasons(&self) -> String {
        if self.left_out.is_empty() {
            return String::new();
        }
        let lines = self.left_out.iter();
        let lines: String = lines
            .map(|(device, reason)| format!("#   {device} {reason}\n"))
            .collect();
        format!("\n# Left out:\n{lines}")
    }
}

fn section(interface: &FoundInterface) -> String {
    let devices = match &interface.devices[..] {
        [device] => quoted(device),
        devices => list(devices),
    };
    format!(
        "\n{}[interfaces.{}]\ndevice = {devices}\n",
        comment(&interface.remarks),
        interface.name
    )
}

fn line(subnet: &FoundSubnet) -> String {
    let addresses = match &subnet.follows {
        Some(device) => format!("{{ device = {} }}", quoted(device)),
        None => list(&subnet.prefixes),
    };
    format!(
        "{}{} = {addresses}\n",
        comment(&subnet.remarks),
        subnet.name
    )
}

fn threshold(interface: &FoundInterface) -> String {
    let name = &interface.name;
    format!(
        "
# When to look closer and name who moved the bytes; the percentage is one of the capacity above. It switches
# connection tracking on, which costs every packet a little.
#[thresholds.{name}_full]
#counter = \"{name}_out\"
#raise = \"80%\"
#clear = \"60%\"
"
    )
}

fn comment(remarks: &[String]) -> String {
    (remarks.iter())
        .map(|remark| format!("# {remark}\n"))
        .collect()
}

/// Neither devices that a configuration takes nor prefixes have anything in them that TOML escapes.
fn quoted(value: &impl Display) -> String {
    format!("\"{value}\"")
}

fn list(values: &[impl Display]) -> String {
    let quoted: Vec<String> = values.iter().map(quoted).collect();
    let one_line = format!("[{}]", quoted.join(", "));
    if one_line.len() <= LINE_MAX {
        return one_line;
    }
    format!("[\n    {},\n]", quoted.join(",\n    "))
}
