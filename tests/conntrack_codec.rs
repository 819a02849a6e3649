//! The conntrack codec against what a kernel sent, what conntrack(8) printed of it, a second decoder, and noise.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use flowctl::kernel::attr::{Attributes, Malformed, Messages};
use flowctl::kernel::conntrack::{Detail, FlowRecord, Tuple, message};
use flowctl::kernel::flow_events::{FlowEvent, Told};
use flowctl::kernel::flow_request::dump_request;
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload, ParseableParametrized};
use netlink_packet_netfilter::conntrack as oracle;
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use proptest::prelude::*;

const DUMP: &str = include_str!("fixtures/conntrack/dump.hex");
const LIST: &str = include_str!("fixtures/conntrack/dump.list");
const DESTROY: &str = include_str!("fixtures/conntrack/destroy.hex");
const EVENTS: &str = include_str!("fixtures/conntrack/events.hex");
const EVENT_LIST: &str = include_str!("fixtures/conntrack/events.list");

fn messages(hex: &str) -> Vec<Vec<u8>> {
    let byte = |line: &str, at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
    hex.lines()
        .map(|line| {
            (0..line.len())
                .step_by(2)
                .map(|at| byte(line, at))
                .collect()
        })
        .collect()
}

fn records(hex: &str) -> Vec<FlowRecord> {
    messages(hex)
        .iter()
        .map(|message| FlowRecord::decode(message).unwrap())
        .collect()
}

fn by_source_port(port: u16) -> FlowRecord {
    let found = |flow: &FlowRecord| matches!(flow.original.detail, Detail::Ports { source, .. } if source == port);
    records(DUMP).into_iter().find(found).unwrap()
}

/// The two values of each key in a line of conntrack(8): the original's, then the reply's.
fn printed(line: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut values = BTreeMap::<_, Vec<_>>::new();
    for (key, value) in line
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
    {
        values.entry(key).or_default().push(value);
    }
    values
}

fn assert_tuple(tuple: &Tuple, line: &str, position: usize) {
    let values = printed(line);
    let number = |key: &str| values[key][position].parse::<u16>().unwrap();
    assert_eq!(
        tuple.source,
        values["src"][position].parse::<IpAddr>().unwrap(),
        "{line}"
    );
    assert_eq!(
        tuple.destination,
        values["dst"][position].parse::<IpAddr>().unwrap(),
        "{line}"
    );
    let detail = if values.contains_key("sport") {
        Detail::Ports {
            source: number("sport"),
            destination: number("dport"),
        }
    } else if values.contains_key("type") {
        Detail::Icmp {
            id: number("id"),
            kind: number("type") as u8,
            code: number("code") as u8,
        }
    } else {
        Detail::None
    };
    assert_eq!(tuple.detail, detail, "{line}");
}

#[test]
fn decodes_what_conntrack_prints() {
    let lines: BTreeMap<u32, &str> = LIST
        .lines()
        .map(|line| (printed(line)["id"].last().unwrap().parse().unwrap(), line))
        .collect();
    let flows = records(DUMP);
    assert_eq!((flows.len(), lines.len()), (11, 11));
    for flow in flows {
        let line = lines[&flow.id];
        assert_printed(&flow, line);
        let is_established = line.contains("ESTABLISHED");
        assert_eq!(flow.tcp_state, is_established.then_some(3), "{line}");
    }
}

/// All but the TCP state, which the program prints by name.
fn assert_printed(flow: &FlowRecord, line: &str) {
    let values = printed(line);
    let printed = &line[line.find("ipv").unwrap()..];
    let protocol = printed.split_whitespace().nth(3).unwrap();
    assert_eq!(flow.original.protocol.to_string(), protocol);
    assert_tuple(&flow.original, line, 0);
    assert_tuple(&flow.reply, line, 1);
    for (volume, position) in [(flow.original_volume, 0), (flow.reply_volume, 1)] {
        let number = |key: &str| {
            values
                .get(key)
                .map(|found| found[position].parse::<u64>().unwrap())
        };
        assert_eq!(volume.map(|volume| volume.bytes), number("bytes"), "{line}");
        assert_eq!(
            volume.map(|volume| volume.packets),
            number("packets"),
            "{line}"
        );
    }
    let number = |key: &str| {
        values
            .get(key)
            .map_or(0, |found| found[0].parse::<u32>().unwrap())
    };
    assert_eq!(flow.mark, number("mark"), "{line}");
    assert_eq!(
        u32::from(flow.zone),
        number("zone") + number("zone-orig"),
        "{line}"
    );
    assert_eq!(
        flow.start.is_some(),
        values.contains_key("delta-time"),
        "{line}"
    );
    const SEEN_REPLY: u32 = 2;
    assert_eq!(
        flow.status & SEEN_REPLY == 0,
        line.contains("[UNREPLIED]"),
        "{line}"
    );
}

/// What is made of each event of the groups NEW, UPDATE and DESTROY, with the line that the program printed of it.
fn events() -> Vec<(Option<Told>, &'static str)> {
    let datagrams = messages(EVENTS);
    assert_eq!(datagrams.len(), EVENT_LIST.lines().count());
    let decode = |datagram: &Vec<u8>| {
        let message = Messages::new(datagram).next().unwrap().unwrap();
        Told::decode(&message).unwrap()
    };
    let told = datagrams.iter().map(decode);
    told.zip(EVENT_LIST.lines()).collect()
}

#[test]
fn events_are_what_conntrack_prints_and_updates_are_none() {
    let events = events();
    let names = ["[NEW]", "[UPDATE]", "[DESTROY]"];
    let counts = names.map(|name| {
        events
            .iter()
            .filter(|(_, line)| line.contains(name))
            .count()
    });
    assert_eq!(counts, [5, 5, 5]);
    for (told, line) in events {
        let Some(told) = told else {
            assert!(line.contains("[UPDATE]"), "{line}");
            continue;
        };
        let (flow, name) = match told.event {
            FlowEvent::Born(flow) => (flow, "[NEW]"),
            FlowEvent::Ended(flow) => (flow, "[DESTROY]"),
        };
        assert!(line.contains(name), "{line}");
        assert_printed(&flow, line);
        let values = printed(line);
        assert_eq!(flow.id.to_string(), values["id"][0]);
        let by = values.get("portid").map_or("0", |ports| ports[0]);
        assert_eq!(told.by.to_string(), by, "{line}");
        assert_eq!(flow.stop.is_some(), name == "[DESTROY]");
    }
}

#[test]
fn only_the_birth_of_a_flow_has_its_labels() {
    let labels = |told: &Told| match told.event {
        FlowEvent::Born(flow) => flow.labels,
        FlowEvent::Ended(flow) => flow.labels,
    };
    for (told, line) in events() {
        let Some(told) = told else { continue };
        let sent_from_outside = line.contains("src=198.51.100.11 dst=203.0.113.2");
        let expected = match told.event {
            FlowEvent::Born(_) if sent_from_outside => Some(1 << 66 | 1 << 65),
            // One that a program made passed no rule.
            FlowEvent::Born(_) if told.by == 0 => Some(1 << 64 | 1 << 67),
            FlowEvent::Born(_) | FlowEvent::Ended(_) => None,
        };
        assert_eq!(labels(&told), expected, "{line}");
    }
}

#[test]
fn labels_tell_an_upload_from_a_port_forward() {
    assert_eq!(by_source_port(50312).labels, Some(1 << 64 | 1 << 67));
    assert_eq!(by_source_port(33000).labels, Some(1 << 66 | 1 << 65));
}

#[test]
fn a_flow_older_than_accounting_has_no_counters_and_no_stamp() {
    let flow = by_source_port(40001);
    assert_eq!(
        (
            flow.original_volume,
            flow.reply_volume,
            flow.start,
            flow.labels
        ),
        (None, None, None, None)
    );
}

#[test]
fn a_destroy_event_has_counters_and_both_stamps_but_no_labels() {
    let flows = records(DESTROY);
    assert_eq!(flows.len(), 2);
    for flow in flows {
        assert!(flow.original_volume.is_some() && flow.labels.is_none());
        assert!(flow.start.unwrap() < flow.stop.unwrap());
    }
}

#[test]
fn the_request_asks_for_a_dump_of_all_families() {
    let request = dump_request(7);
    let header = NetlinkMessage::<NetfilterMessage>::deserialize(&request).unwrap();
    let NetlinkHeader {
        length,
        message_type,
        flags,
        sequence_number,
        ..
    } = header.header;
    assert_eq!(
        (length, message_type, flags, sequence_number),
        (20, message::GET, 0x301, 7)
    );
    let NetlinkPayload::InnerMessage(inner) = header.payload else {
        panic!()
    };
    assert_eq!(u8::from(inner.header.family), 0);
}

#[test]
fn agrees_with_a_second_decoder_where_it_has_types() {
    for bytes in messages(DUMP) {
        let flow = FlowRecord::decode(&bytes).unwrap();
        let parsed = NetfilterMessage::parse_with_param(&bytes, message::NEW).unwrap();
        let NetfilterMessageInner::Conntrack(oracle::ConntrackMessage::New(found)) = parsed.inner
        else {
            panic!()
        };
        for attribute in found {
            match attribute {
                oracle::ConntrackAttribute::CtaTupleOrig(parts) => compare(&flow.original, &parts),
                oracle::ConntrackAttribute::CtaTupleReply(parts) => compare(&flow.reply, &parts),
                oracle::ConntrackAttribute::CtaStatus(status) => {
                    assert_eq!(flow.status, status.bits())
                }
                oracle::ConntrackAttribute::CtaMark(mark) => assert_eq!(flow.mark, mark),
                _ => {}
            }
        }
    }
}

fn compare(tuple: &Tuple, parts: &[oracle::Tuple]) {
    for part in parts {
        match part {
            oracle::Tuple::Ip(addresses) => {
                assert_eq!(addresses[0], oracle::IPTuple::SourceAddress(tuple.source));
                assert_eq!(
                    addresses[1],
                    oracle::IPTuple::DestinationAddress(tuple.destination)
                );
            }
            oracle::Tuple::Proto(fields) => {
                assert_eq!(
                    fields[0],
                    oracle::ProtoTuple::Protocol(tuple.protocol.into())
                );
                if let Detail::Ports {
                    source,
                    destination,
                } = tuple.detail
                {
                    assert_eq!(fields[1], oracle::ProtoTuple::SourcePort(source));
                    assert_eq!(fields[2], oracle::ProtoTuple::DestinationPort(destination));
                }
            }
            _ => {}
        }
    }
}

#[test]
fn every_truncation_is_an_error_or_a_record_with_less() {
    for bytes in messages(DUMP) {
        for end in 0..bytes.len() {
            if let Ok(cut) = FlowRecord::decode(&bytes[..end]) {
                assert_eq!(cut.original, FlowRecord::decode(&bytes).unwrap().original);
            }
        }
    }
}

const TUPLES: [u16; 2] = [1, 2];
const ID: u16 = 12;

/// The message with each attribute as `change` makes it, or without it.
fn changed(message: &[u8], change: impl Fn(u16, &[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut made = message[..4].to_vec();
    for attribute in Attributes::new(&message[4..]).flatten() {
        if let Some(value) = change(attribute.kind, attribute.value) {
            made.extend((value.len() as u16 + 4).to_ne_bytes());
            made.extend(attribute.kind.to_ne_bytes());
            made.extend(value);
            made.resize(made.len().next_multiple_of(4), 0);
        }
    }
    made
}

#[test]
fn both_tuples_and_the_id_are_demanded() {
    for bytes in messages(DUMP) {
        for left_out in TUPLES.into_iter().chain([ID]) {
            let less = changed(&bytes, |kind, value| {
                (kind != left_out).then(|| value.to_vec())
            });
            let missing = Malformed::Missing {
                attribute: left_out,
            };
            assert_eq!(FlowRecord::decode(&less), Err(missing));
        }
    }
}

#[test]
fn a_tuple_in_another_form_means_the_same() {
    const UNKNOWN: [u8; 8] = [8, 0, 0xff, 0, 1, 2, 3, 4];
    for bytes in messages(DUMP) {
        for at_the_end in [true, false] {
            let other = changed(&bytes, |kind, value| {
                let parts: [&[u8]; 2] = match (TUPLES.contains(&kind), at_the_end) {
                    (false, _) => [value, &[]],
                    (true, true) => [value, &UNKNOWN],
                    (true, false) => [&UNKNOWN, value],
                };
                Some(parts.concat())
            });
            assert_eq!(FlowRecord::decode(&other), FlowRecord::decode(&bytes));
        }
    }
}

#[test]
fn attributes_of_a_newer_kernel_are_skipped() {
    for mut bytes in messages(DUMP) {
        let before = FlowRecord::decode(&bytes);
        bytes.extend([8, 0, 0xff, 0, 1, 2, 3, 4]);
        assert_eq!(FlowRecord::decode(&bytes), before);
    }
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = FlowRecord::decode(&bytes);
    }

    #[test]
    fn a_damaged_message_never_panics(
        which in 0usize..11,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = messages(DUMP).swap_remove(which);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = FlowRecord::decode(&bytes);
    }

    #[test]
    fn a_damaged_event_never_panics(
        which in 0usize..15,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = messages(EVENTS).swap_remove(which);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for message in Messages::new(&bytes).flatten() {
            let _ = Told::decode(&message);
        }
    }
}
