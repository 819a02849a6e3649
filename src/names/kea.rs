//! The leases of Kea: rows of its memfile, and what its control socket answers. Kea's guide has both: "Why is lease
//! information stored" for the files, the lease commands hook for the answers.

use std::io::Read;
use std::net::IpAddr;

use serde::Deserialize;

use super::json::{Bounded, Text};
use super::lease::{Lease, Leases};
use crate::config::printable;
use crate::units::{HostName, Mac};

/// With this lifetime a lease never ends (Lease::INFINITY_LFT).
const FOR_EVER: u64 = u32::MAX as u64;
/// Lease::STATE_DEFAULT: it is in use. The others are declined, reclaimed and released.
const IN_USE: u64 = 0;
/// Lease::TYPE_PD: a prefix that was delegated, not an address.
const DELEGATED: &str = "2";

/// What a memfile's first line begins with.
pub const HEADER: &str = "address,";

/// Which column of a memfile holds what: versions of Kea differ in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    address: usize,
    valid_lifetime: usize,
    expire: usize,
    mac: Option<usize>,
    name: Option<usize>,
    state: Option<usize>,
    kind: Option<usize>,
}

impl Columns {
    /// From the first line, without its end; `None` where it is none of a memfile.
    pub fn of(header: &str) -> Option<Columns> {
        let position = |name: &str| header.split(',').position(|column| column == name);
        Some(Columns {
            address: position("address")?,
            valid_lifetime: position("valid_lifetime")?,
            expire: position("expire")?,
            mac: position("hwaddr"),
            name: position("hostname"),
            state: position("state"),
            kind: position("lease_type"),
        })
    }

    /// Takes in one row, without its end. The file is appended to, so the last row for an address wins. What cannot be
    /// a row of the file is passed over, as Kea does.
    pub fn take(&self, row: &str, leases: &mut Leases) {
        let fields: Vec<&str> = row.split(',').collect();
        let field = |column: Option<usize>| fields.get(column?).copied();
        let number = |column| field(Some(column))?.parse::<u64>().ok();
        let (Some(address), Some(lifetime), Some(expires)) = (
            field(Some(self.address)).and_then(|text| text.parse().ok()),
            number(self.valid_lifetime),
            number(self.expire),
        ) else {
            return;
        };
        if field(self.kind) == Some(DELEGATED) {
            return;
        }
        let state = field(self.state).map_or(Some(IN_USE), |text| text.parse().ok());
        // A lifetime of 0 is how a row says that the lease was deleted.
        if lifetime == 0 || state != Some(IN_USE) {
            return leases.remove(address);
        }
        leases.put(
            address,
            Lease {
                mac: field(self.mac).and_then(Mac::parse),
                name: field(self.name).and_then(|name| HostName::reduced(&unescaped(name))),
                expires: (lifetime != FOR_EVER).then_some(expires),
            },
        );
    }
}

/// Kea writes a character that would end a field, and the `&` of what looks like such a mark, as `&#x` and two digits.
fn unescaped(field: &str) -> String {
    const MARK: &str = "&#x";
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once(MARK) {
        text += before;
        let digits = after.get(..2);
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                text.push(char::from(byte));
                rest = &after[2..];
            }
            None => {
                text += MARK;
                rest = after;
            }
        }
    }
    text + rest
}

/// What asks for the leases of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Those of IPv4.
    Lease4GetAll,
    /// Those of IPv6.
    Lease6GetAll,
}

impl Command {
    /// Both: the hook library answers either, whichever of the two servers loaded it.
    pub const ALL: [Command; 2] = [Command::Lease4GetAll, Command::Lease6GetAll];

    /// What to send.
    pub fn request(self) -> &'static str {
        match self {
            Command::Lease4GetAll => r#"{"command": "lease4-get-all"}"#,
            Command::Lease6GetAll => r#"{"command": "lease6-get-all"}"#,
        }
    }
}

/// Why an answer holds no leases.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It knows no such command.
    #[error("Kea has not loaded its hook library libdhcp_lease_cmds.so, which answers for leases")]
    Unsupported,
    /// It could not tell.
    #[error("Kea says: {0}")]
    Refused(String),
    /// It did not come, or was something else.
    #[error(transparent)]
    Unreadable(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Answer {
    /// CONTROL_RESULT_SUCCESS and so on.
    result: i64,
    #[serde(default)]
    text: Text,
    #[serde(default)]
    arguments: Arguments,
}

#[derive(Default, Deserialize)]
struct Arguments {
    #[serde(default)]
    leases: Bounded<Row>,
}

/// A lease as the socket tells it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    ip_address: Text,
    /// When the client was last heard of: Unix time in seconds.
    cltt: u64,
    /// In seconds from then on.
    valid_lft: u64,
    #[serde(default)]
    state: u64,
    hw_address: Option<Text>,
    hostname: Option<Text>,
    /// Of IPv6 only: IA_NA, IA_TA or IA_PD.
    r#type: Option<Text>,
}

/// Takes in what Kea answered to one command. It closes the connection then, but what follows is not waited for.
pub fn take_answer(reader: impl Read, leases: &mut Leases) -> Result<(), AnswerError> {
    const SUCCESS: i64 = 0;
    const UNSUPPORTED: i64 = 2;
    const EMPTY: i64 = 3;
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    let answer = Answer::deserialize(&mut deserializer)?;
    match answer.result {
        SUCCESS => {}
        EMPTY => return Ok(()),
        UNSUPPORTED => return Err(AnswerError::Unsupported),
        _ => return Err(AnswerError::Refused(said(&answer.text))),
    }
    let delegated = |row: &Row| matches!(&row.r#type, Some(Text(kind)) if kind == "IA_PD");
    let rows = answer.arguments.leases.0.into_iter();
    for row in rows.filter(|row| row.state == IN_USE && !delegated(row)) {
        let Ok(address) = row.ip_address.0.parse::<IpAddr>() else {
            continue;
        };
        let expires = row.cltt.saturating_add(row.valid_lft);
        let lease = Lease {
            mac: row.hw_address.and_then(|Text(mac)| Mac::parse(&mac)),
            name: row.hostname.and_then(|Text(name)| HostName::reduced(&name)),
            expires: (row.valid_lft != FOR_EVER).then_some(expires),
        };
        leases.put(address, lease);
    }
    Ok(())
}

/// The beginning of what Kea says, printable.
fn said(text: &Text) -> String {
    const SAID_MAX: usize = 200;
    printable(&text.0.chars().take(SAID_MAX).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::lease::tests::shown;
    use super::*;

    /// Written by Kea 2.2.0, told by `lease4-add` and `lease4-del`.
    const V4: &str = include_str!("../../tests/fixtures/leases/kea4.csv");
    /// The same for IPv6.
    const V6: &str = include_str!("../../tests/fixtures/leases/kea6.csv");
    /// Answered by the same servers at the same time.
    const ANSWER4: &str = include_str!("../../tests/fixtures/leases/kea4.json");
    const ANSWER6: &str = include_str!("../../tests/fixtures/leases/kea6.json");
    /// When these were written.
    const THEN: u64 = 1_795_566_395;

    fn rows(text: &str, now: u64) -> Leases {
        let mut leases = Leases::new(now, 100);
        let mut lines = text.lines();
        let columns = Columns::of(lines.next().unwrap()).unwrap();
        lines.for_each(|row| columns.take(row, &mut leases));
        leases
    }

    fn answer(text: &str, now: u64) -> Result<Leases, AnswerError> {
        let mut leases = Leases::new(now, 100);
        take_answer(text.as_bytes(), &mut leases).map(|()| leases)
    }

    const NAMED4: [&str; 3] = [
        "192.168.1.5 nas.example.org 02:00:00:00:00:05",
        "192.168.1.6 a_b___31m__x__x41 02:00:00:00:00:06",
        "192.168.1.10 - 02:00:00:00:00:0a",
    ];

    #[test]
    fn what_kea_wrote_is_read_without_the_deleted_the_declined_and_the_expired() {
        assert_eq!(shown(&rows(V4, THEN), THEN), NAMED4);
        let named = ["fd00:1::5 nas6 02:00:00:00:00:05"];
        assert_eq!(shown(&rows(V6, THEN), THEN), named, "no delegated prefix");
    }

    #[test]
    fn what_kea_answers_is_what_it_wrote() {
        assert_eq!(answer(ANSWER4, THEN).unwrap(), rows(V4, THEN));
        assert_eq!(answer(ANSWER6, THEN).unwrap(), rows(V6, THEN));
    }

    #[test]
    fn a_lease_for_ever_never_ends() {
        let far = u64::from(u32::MAX) * 2;
        assert_eq!(shown(&rows(V4, far), far), NAMED4[1..2]);
        assert_eq!(shown(&answer(ANSWER4, far).unwrap(), far), NAMED4[1..2]);
    }

    #[test]
    fn the_last_row_for_an_address_wins_in_whatever_order_the_columns_are() {
        let text = "hostname,expire,address,pool_id,valid_lifetime\n\
                    old,200,10.0.0.1,0,9\nnew,200,10.0.0.1,0,9\n\
                    gone,200,10.0.0.2,0,9\ngone,200,10.0.0.2,0,0\n\
                    back,200,10.0.0.2,0,9\ngone,200,10.0.0.4,0,9\ngone,200,10.0.0.4,0,0\nlast,200,10.0.0.3,0,9\nlast,99,10.0.0.3,0,9\n";
        let found = shown(&rows(text, 100), 100);
        assert_eq!(found, ["10.0.0.1 new -", "10.0.0.2 back -"]);
    }

    #[test]
    fn what_is_no_row_is_passed_over() {
        let text = "address,valid_lifetime,expire,hostname,state\n\
                    10.0.0.1,9,200\nx,9,200,a,0\n10.0.0.2,-1,200,a,0\n\n10.0.0.3,9\naddress,valid_lifetime,expire,hostname,state\n10.0.0.4,9,200,a,x\n";
        assert_eq!(shown(&rows(text, 100), 100), ["10.0.0.1 - -"]);
        for header in [
            "",
            "1795570028 02:00:00:00:00:05 10.0.0.1 a *",
            "address,expire",
        ] {
            assert_eq!(Columns::of(header), None, "{header}");
        }
    }

    #[test]
    fn kea_marks_characters_by_their_number() {
        assert_eq!(unescaped("a&#x2cb&#x26#x41"), "a,b&#x41");
        assert_eq!(unescaped("&#x"), "&#x");
        assert_eq!(unescaped("&#xg0&#x2&#x€"), "&#xg0&#x2&#x€");
    }

    #[test]
    fn an_answer_without_leases_says_why() {
        let missing = r#"{ "result": 2, "text": "'lease4-get-all' command not supported." }"#;
        assert!(matches!(answer(missing, 0), Err(AnswerError::Unsupported)));
        let refused = answer("{ \"result\": 1, \"text\": \"no\\u001b[31m\" }", 0).unwrap_err();
        assert_eq!(refused.to_string(), "Kea says: no\\u{1b}[31m");
        let none =
            r#"{ "arguments": { "leases": [  ] }, "result": 3, "text": "0 IPv4 lease(s) found." }"#;
        assert!(answer(none, 0).unwrap().is_empty());
        for cut in ["", "{ \"result\": 0", "[]"] {
            assert!(matches!(answer(cut, 0), Err(AnswerError::Unreadable(_))));
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_costs_no_other_name() {
        let mut text = br#"{"result":0,"arguments":{"leases":[{"ip-address":"10.0.0.1","cltt":1,"valid-lft":9,"hostname":"a"#.to_vec();
        text.extend(b"\xff\"},{\"ip-address\":\"10.0.0.2\",\"cltt\":1,\"valid-lft\":9,\"hostname\":\"b\"}]}}");
        let mut leases = Leases::new(0, 9);
        take_answer(&text[..], &mut leases).unwrap();
        assert_eq!(shown(&leases, 0), ["10.0.0.1 a_ -", "10.0.0.2 b -"]);
    }
}
