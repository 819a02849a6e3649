//! How fast the devices' links are (ethtool over generic netlink, linux/ethtool_netlink.h). Needs no privilege; devices
//! that have no speed, such as a bridge or a tunnel, are left out.

use std::collections::BTreeMap;

use netlink_sys::protocols::NETLINK_GENERIC;

use super::attr::{Attributes, Malformed, Message, Writer};
use super::error::KernelError;
use super::socket::Netlink;

/// Length of `struct genlmsghdr`: command, version, two bytes of nothing.
const GENERIC_HEADER: usize = 4;
/// GENL_ID_CTRL: knows the numbers of all families.
const CONTROL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const FAMILY: &str = "ethtool";
const ETHTOOL_MSG_LINKMODES_GET: u8 = 4;
/// ETHTOOL_A_LINKMODES_HEADER, in requests and answers.
const HEADER: u16 = 1;
/// ETHTOOL_A_HEADER_DEV_INDEX.
const DEVICE_INDEX: u16 = 1;
/// ETHTOOL_A_HEADER_FLAGS, and ETHTOOL_FLAG_COMPACT_BITSETS in it.
const FLAGS: u16 = 3;
const COMPACT: u32 = 1;
/// ETHTOOL_A_LINKMODES_SPEED: Mbit/s, u32 in machine byte order; SPEED_UNKNOWN without a link.
const SPEED: u16 = 5;
const UNKNOWN: u32 = u32::MAX;

/// Bits per second, by the device's index. Empty where the kernel has no ethtool family.
pub fn read() -> Result<BTreeMap<u32, f64>, KernelError> {
    let mut netlink = Netlink::open(NETLINK_GENERIC)?;
    let mut found = BTreeMap::new();
    let Some(family) = family(&mut netlink)? else {
        return Ok(found);
    };
    let body = |w: &mut Writer| {
        w.raw(&[ETHTOOL_MSG_LINKMODES_GET, 1, 0, 0]);
        w.nest(HEADER, |w| w.attribute(FLAGS, &COMPACT.to_ne_bytes()));
    };
    netlink.dump("read link speeds", family, body, |message| {
        found.extend(decode(message)?);
        Ok(())
    })?;
    Ok(found)
}

fn family(netlink: &mut Netlink) -> Result<Option<u16>, KernelError> {
    let body = |w: &mut Writer| {
        w.raw(&[CTRL_CMD_GETFAMILY, 1, 0, 0]);
        w.text(CTRL_ATTR_FAMILY_NAME, FAMILY);
    };
    let found = netlink.get("ask for link speeds", CONTROL, body, |message| {
        for attribute in attributes(message)? {
            let attribute = attribute?;
            if attribute.kind == CTRL_ATTR_FAMILY_ID {
                return Ok(u16::from_ne_bytes(attribute.array()?));
            }
        }
        Err(Malformed::Missing {
            attribute: CTRL_ATTR_FAMILY_ID,
        })
    })?;
    Ok(found)
}

fn decode(message: &Message<'_>) -> Result<Option<(u32, f64)>, Malformed> {
    let (mut index, mut speed) = (None, None);
    for attribute in attributes(message)? {
        let attribute = attribute?;
        match attribute.kind {
            HEADER => {
                for attribute in attribute.nested() {
                    let attribute = attribute?;
                    if attribute.kind == DEVICE_INDEX {
                        index = Some(u32::from_ne_bytes(attribute.array()?));
                    }
                }
            }
            SPEED => speed = Some(u32::from_ne_bytes(attribute.array()?)),
            _ => {}
        }
    }
    let speed = speed.filter(|speed| *speed != UNKNOWN);
    Ok(index.zip(speed.map(|megabits| f64::from(megabits) * 1e6)))
}

fn attributes<'a>(message: &Message<'a>) -> Result<Attributes<'a>, Malformed> {
    let attributes = message.payload.get(GENERIC_HEADER..);
    Ok(Attributes::new(attributes.ok_or(Malformed::Length)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::attr::recorded;

    /// As Linux 6.18 answers for a veth device, and the same with SPEED_UNKNOWN.
    const ANSWERS: &str = "7c00000015000200010000000c3700000401000014000180080001000200000007000200763100000500020000000000340003800800020079000000140004000000000000000000000000000000000014000500000000000000000000000000000000000800050010270000050006000100000005000a0000000000\n7c00000015000200010000000c37000004010000140001800800010002000000070002007631000005000200000000003400038008000200790000001400040000000000000000000000000000000000140005000000000000000000000000000000000008000500ffffffff050006000100000005000a0000000000";

    #[test]
    fn a_speed_is_told_by_index_and_an_unknown_one_not_at_all() {
        let decoded = recorded::each(ANSWERS, |message| decode(message).unwrap());
        assert_eq!(decoded, [Some((2, 1e10)), None]);
    }
}
