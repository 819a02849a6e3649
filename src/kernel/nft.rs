//! nf_tables on the wire, reading side: numbers of messages and attributes (include/uapi/linux/netfilter/
//! nf_tables.h) and what the kernel's answers mean. Integers are big-endian; unknown attributes are skipped.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::attr::{Attribute, Attributes, Malformed, Message};
use crate::plan::content::Listed;
use crate::plan::printed::Maker;
use crate::units::{ExistingCounter, TableFamily, Volume};

/// Message numbers, subsystem (10) included.
pub mod message {
    const SUBSYSTEM: u16 = 10 << 8;
    /// Creates a table.
    pub const NEW_TABLE: u16 = SUBSYSTEM;
    /// Asks for tables.
    pub const GET_TABLE: u16 = SUBSYSTEM | 1;
    /// Deletes a table and all in it.
    pub const DEL_TABLE: u16 = SUBSYSTEM | 2;
    /// Creates a chain.
    pub const NEW_CHAIN: u16 = SUBSYSTEM | 3;
    /// Asks for chains.
    pub const GET_CHAIN: u16 = SUBSYSTEM | 4;
    /// Deletes a chain.
    pub const DEL_CHAIN: u16 = SUBSYSTEM | 5;
    /// Creates a rule.
    pub const NEW_RULE: u16 = SUBSYSTEM | 6;
    /// Asks for rules.
    pub const GET_RULE: u16 = SUBSYSTEM | 7;
    /// Deletes rules: without a chain, all of the table.
    pub const DEL_RULE: u16 = SUBSYSTEM | 8;
    /// Creates a set or map.
    pub const NEW_SET: u16 = SUBSYSTEM | 9;
    /// Asks for sets and maps.
    pub const GET_SET: u16 = SUBSYSTEM | 10;
    /// Deletes a set or map.
    pub const DEL_SET: u16 = SUBSYSTEM | 11;
    /// Adds elements.
    pub const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
    /// Asks for the elements of a set or map.
    pub const GET_ELEMENT: u16 = SUBSYSTEM | 13;
    /// Removes elements.
    pub const DEL_ELEMENT: u16 = SUBSYSTEM | 14;
    /// Notification: a transaction was committed.
    pub const NEW_GENERATION: u16 = SUBSYSTEM | 15;
    /// Asks for the generation.
    pub const GET_GENERATION: u16 = SUBSYSTEM | 16;
    /// Creates an object.
    pub const NEW_OBJECT: u16 = SUBSYSTEM | 18;
    /// Asks for objects. Number 21 reads and resets them: never used.
    pub const GET_OBJECT: u16 = SUBSYSTEM | 19;
    /// Deletes an object.
    pub const DEL_OBJECT: u16 = SUBSYSTEM | 20;
    /// Asks for flowtables.
    pub const GET_FLOWTABLE: u16 = SUBSYSTEM | 23;
    /// Begins a batch.
    pub const BATCH_BEGIN: u16 = 0x10;
    /// Ends a batch; without it nothing is applied.
    pub const BATCH_END: u16 = 0x11;
}

/// The number of a family: NFPROTO_*.
pub fn family_number(family: TableFamily) -> u8 {
    match family {
        TableFamily::Inet => FAMILY_INET,
        TableFamily::Ip => 2,
        TableFamily::Arp => 3,
        TableFamily::Netdev => 5,
        TableFamily::Bridge => 7,
        TableFamily::Ip6 => 10,
    }
}

/// NFPROTO_INET: both IPv4 and IPv6.
pub const FAMILY_INET: u8 = 1;
/// NFPROTO_UNSPEC: every family.
pub const FAMILY_ANY: u8 = 0;
/// NFT_OBJECT_COUNTER.
pub const OBJECT_COUNTER: u32 = 1;
/// The attribute that names the table is number 1 in every message about something in a table.
pub const TABLE: u16 = 1;

const TABLE_FLAGS: u16 = 2;
const TABLE_HANDLE: u16 = 4;
const TABLE_USERDATA: u16 = 6;
const TABLE_OWNER: u16 = 7;
/// NFTNL_UDATA_TABLE_COMMENT.
const COMMENT: u8 = 0;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_LENGTH: u16 = 5;
const SET_ANONYMOUS: u32 = 1;
const SET_INTERVAL: u32 = 4;
const ELEMENT_LIST: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_EXPRESSION: u16 = 7;
const EXPRESSION_DATA: u16 = 2;
const ELEMENT_OBJECT: u16 = 9;
const ELEMENT_KEY_END: u16 = 10;
const OBJECT_NAME: u16 = 2;
const OBJECT_DATA: u16 = 4;
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;
const GENERATION_ID: u16 = 1;
const GENERATION_PROGRAM: u16 = 3;

/// A table, as GETTABLE answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Unique in the network namespace until it is rebooted: another handle is another table.
    pub handle: u64,
    /// Its comment, if it has one.
    pub comment: Option<String>,
    /// NFT_TABLE_F_*: see [`table_flag`].
    pub flags: u32,
    /// The port of the socket that owns it; absent where nobody does.
    pub owner: Option<u32>,
}

/// Who may change a table besides flowctl.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protection {
    /// Anyone: it is repaired.
    Plain,
    /// Nobody, as long as the socket that installed it is open; then anyone, and the next owner may have it.
    Owned,
    /// Whoever loads the system's ruleset; flowctl only reads it.
    Static,
}

/// What a table may be.
pub mod table_flag {
    /// Only the socket that made it may change it; a foreign flush passes it by. Since Linux 5.12.
    pub const OWNER: u32 = 2;
    /// It outlives its owner, as a table that anyone may change and the next owner may have. Since Linux 6.9.
    pub const PERSIST: u32 = 4;
}

impl TableInfo {
    /// Who made it, as far as its comment tells.
    pub fn maker(&self) -> Maker {
        Maker::of(self.comment.as_deref())
    }

    /// Of a NEWTABLE message.
    pub fn decode(message: &Message<'_>) -> Result<Self, Malformed> {
        let mut table = TableInfo {
            handle: 0,
            comment: None,
            flags: 0,
            owner: None,
        };
        for attribute in message.attributes()? {
            let attribute = attribute?;
            match attribute.kind {
                TABLE_FLAGS => table.flags = attribute.be32()?,
                TABLE_OWNER => table.owner = Some(attribute.be32()?),
                TABLE_HANDLE => table.handle = attribute.be64()?,
                TABLE_USERDATA => table.comment = comment(attribute.value),
                _ => {}
            }
        }
        Ok(table)
    }
}

/// The comment among nft's userdata records: type, length, bytes.
fn comment(mut userdata: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        userdata = &rest[value.len()..];
    }
    None
}

/// The userdata that says `text` as nft's comment.
pub fn comment_userdata(text: &str) -> Vec<u8> {
    let mut bytes = vec![COMMENT, (text.len() + 1) as u8];
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}

/// One counter object, borrowed from the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterRecord<'a> {
    /// The object's name.
    pub name: &'a [u8],
    /// Layer 3 bytes since it was created or reset.
    pub bytes: u64,
    /// Packets since then.
    pub packets: u64,
}

impl<'a> CounterRecord<'a> {
    /// Of a NEWOBJ message of type counter.
    #[inline]
    pub fn decode(message: &Message<'a>) -> Result<Self, Malformed> {
        let mut name = None;
        let mut data = None;
        for attribute in message.attributes()? {
            let attribute = attribute?;
            match attribute.kind {
                OBJECT_NAME => name = Some(attribute.text()),
                OBJECT_DATA => data = Some(counter_data(attribute.nested())?),
                _ => {}
            }
        }
        let name = name.ok_or(Malformed::Missing {
            attribute: OBJECT_NAME,
        })?;
        let (bytes, packets) = data.ok_or(Malformed::Missing {
            attribute: OBJECT_DATA,
        })?;
        Ok(CounterRecord {
            name,
            bytes,
            packets,
        })
    }
}

/// The counter that a NEWOBJ message is about, whatever its table; `None` where its name, its table's or its family is
/// none that can be written.
pub fn decode_existing(message: &Message<'_>) -> Result<Option<ExistingCounter>, Malformed> {
    let number = message.family()?;
    let (mut table, mut name) = (None, None);
    for attribute in message.attributes()? {
        let attribute = attribute?;
        match attribute.kind {
            TABLE => table = std::str::from_utf8(attribute.text()).ok(),
            OBJECT_NAME => name = std::str::from_utf8(attribute.text()).ok(),
            _ => {}
        }
    }
    let mut families = TableFamily::ALL.into_iter();
    let family = families.find(|family| family_number(*family) == number);
    let (Some(family), Some(table), Some(name)) = (family, table, name) else {
        return Ok(None);
    };
    Ok(ExistingCounter::new(family, table, name).ok())
}

#[inline]
fn counter_data(attributes: Attributes<'_>) -> Result<(u64, u64), Malformed> {
    let (mut bytes, mut packets) = (None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            COUNTER_BYTES => bytes = Some(attribute.be64()?),
            COUNTER_PACKETS => packets = Some(attribute.be64()?),
            _ => {}
        }
    }
    Ok((
        bytes.ok_or(Malformed::Missing {
            attribute: COUNTER_BYTES,
        })?,
        packets.ok_or(Malformed::Missing {
            attribute: COUNTER_PACKETS,
        })?,
    ))
}

/// A chain's name, and hook number and priority if it is a base chain.
pub fn decode_chain(message: &Message<'_>) -> Result<(String, Option<(u32, i32)>), Malformed> {
    let (mut name, mut base) = (None, None);
    for attribute in message.attributes()? {
        let attribute = attribute?;
        match attribute.kind {
            CHAIN_NAME => name = Some(String::from_utf8_lossy(attribute.text()).into_owned()),
            CHAIN_HOOK => base = Some(decode_hook(attribute.nested())?),
            _ => {}
        }
    }
    Ok((
        name.ok_or(Malformed::Missing {
            attribute: CHAIN_NAME,
        })?,
        base,
    ))
}

fn decode_hook(attributes: Attributes<'_>) -> Result<(u32, i32), Malformed> {
    let mut hook = (0, 0);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            HOOK_NUMBER => hook.0 = attribute.be32()?,
            HOOK_PRIORITY => hook.1 = attribute.be32()? as i32,
            _ => {}
        }
    }
    Ok(hook)
}

/// A named set or map, as GETSET lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetInfo {
    /// Its name.
    pub name: String,
    /// Whether it holds intervals.
    pub interval: bool,
    /// Bytes of a key.
    pub key_length: usize,
}

impl SetInfo {
    /// Of a NEWSET message; `None` for an anonymous set, which lives and dies with its rule.
    pub fn decode(message: &Message<'_>) -> Result<Option<Self>, Malformed> {
        let (mut name, mut flags, mut key_length) = (None, 0, 0);
        for attribute in message.attributes()? {
            let attribute = attribute?;
            match attribute.kind {
                SET_NAME => name = Some(String::from_utf8_lossy(attribute.text()).into_owned()),
                SET_FLAGS => flags = attribute.be32()?,
                SET_KEY_LENGTH => key_length = attribute.be32()? as usize,
                _ => {}
            }
        }
        let interval = flags & SET_INTERVAL != 0;
        let named = name.filter(|_| flags & SET_ANONYMOUS == 0);
        Ok(named.map(|name| SetInfo {
            name,
            interval,
            key_length,
        }))
    }
}

/// The elements of a NEWSETELEM message.
pub fn decode_elements(message: &Message<'_>) -> Result<Vec<Listed>, Malformed> {
    let mut elements = Vec::new();
    for attribute in message.attributes()? {
        let attribute = attribute?;
        if attribute.kind == ELEMENT_LIST {
            for element in attribute.nested() {
                elements.push(decode_element(element?.nested())?);
            }
        }
    }
    Ok(elements)
}

/// The elements of a NEWSETELEM message whose keys are addresses, with what each has counted; 0 for one that has no
/// counter.
pub fn decode_sources(message: &Message<'_>) -> Result<Vec<(IpAddr, Volume)>, Malformed> {
    let mut sources = Vec::new();
    for attribute in message.attributes()? {
        let attribute = attribute?;
        if attribute.kind == ELEMENT_LIST {
            for element in attribute.nested() {
                sources.extend(decode_source(element?.nested())?);
            }
        }
    }
    Ok(sources)
}

fn decode_source(attributes: Attributes<'_>) -> Result<Option<(IpAddr, Volume)>, Malformed> {
    let (mut address, mut counted) = (None, Volume::default());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            ELEMENT_KEY => address = read_address(&data_value(&attribute)?),
            ELEMENT_EXPRESSION => {
                for part in attribute.nested() {
                    let part = part?;
                    if part.kind == EXPRESSION_DATA {
                        let (bytes, packets) = counter_data(part.nested())?;
                        counted = Volume { bytes, packets };
                    }
                }
            }
            _ => {}
        }
    }
    Ok(address.map(|address| (address, counted)))
}

fn read_address(key: &[u8]) -> Option<IpAddr> {
    let four = || Some(IpAddr::from(<[u8; 4]>::try_from(key).ok()?));
    four().or_else(|| Some(IpAddr::from(<[u8; 16]>::try_from(key).ok()?)))
}

fn decode_element(attributes: Attributes<'_>) -> Result<Listed, Malformed> {
    let mut element = Listed {
        key: Vec::new(),
        counter: None,
        last: None,
    };
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            ELEMENT_KEY => element.key = data_value(&attribute)?,
            ELEMENT_KEY_END => element.last = Some(data_value(&attribute)?),
            ELEMENT_OBJECT => {
                element.counter = Some(String::from_utf8_lossy(attribute.text()).into_owned())
            }
            _ => {}
        }
    }
    Ok(element)
}

fn data_value(attribute: &Attribute<'_>) -> Result<Vec<u8>, Malformed> {
    match attribute.nested().next() {
        Some(value) => Ok(value?.value.to_vec()),
        None => Err(Malformed::Missing {
            attribute: attribute.kind,
        }),
    }
}

/// A committed transaction: the ruleset's generation and the program that made it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generation {
    /// Counts transactions in the network namespace.
    pub id: u32,
    /// The program's name (`comm`), where the kernel says it.
    pub program: Option<String>,
}

impl Generation {
    /// Of a NEWGEN message.
    pub fn decode(message: &Message<'_>) -> Result<Self, Malformed> {
        let mut generation = Generation::default();
        for attribute in message.attributes()? {
            let attribute = attribute?;
            match attribute.kind {
                GENERATION_ID => generation.id = attribute.be32()?,
                GENERATION_PROGRAM => {
                    generation.program =
                        Some(String::from_utf8_lossy(attribute.text()).into_owned());
                }
                _ => {}
            }
        }
        Ok(generation)
    }
}

/// Whether a notification is about something in the table of that name, family inet.
pub fn is_about(message: &Message<'_>, table: &str) -> Result<bool, Malformed> {
    if message.family()? != FAMILY_INET {
        return Ok(false);
    }
    for attribute in message.attributes()? {
        let attribute = attribute?;
        if attribute.kind == TABLE {
            return Ok(attribute.text() == table.as_bytes());
        }
    }
    Ok(false)
}
