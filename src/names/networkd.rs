//! What the DHCP server of systemd-networkd keeps for each of its interfaces (sd-dhcp-server-lease.c in its source): one
//! JSON object with the list `Leases`; the first versions that kept anything wrote the list alone.

use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::json::{Bounded, Text};
use super::lease::{Lease, Leases};
use crate::units::{HostName, Mac};

/// ARPHRD_ETHER; as a client identifier's first byte the same kind of address follows (RFC 2132, 9.14).
const ETHERNET: u8 = 1;
/// USEC_INFINITY.
const FOR_EVER: u64 = u64::MAX;

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Address")]
    address: [u8; 4],
    #[serde(rename = "Hostname")]
    hostname: Option<Text>,
    #[serde(rename = "ClientId", default)]
    client_id: Vec<u8>,
    /// Not in the first versions, nor the next.
    #[serde(rename = "HardwareAddressType")]
    hardware_address_type: Option<u8>,
    #[serde(rename = "HardwareAddress", default)]
    hardware_address: Vec<u8>,
    /// Unix time in microseconds.
    #[serde(rename = "ExpirationRealtimeUSec")]
    expiration: Option<u64>,
}

impl Entry {
    fn mac(&self) -> Option<Mac> {
        let bytes = match (self.hardware_address_type, self.client_id.split_first()) {
            (Some(ETHERNET), _) => &self.hardware_address[..],
            (None, Some((&ETHERNET, bytes))) => bytes,
            _ => return None,
        };
        Mac::new(bytes.try_into().ok()?)
    }
}

#[derive(Deserialize)]
struct Object {
    #[serde(rename = "Leases", default)]
    leases: Bounded<Entry>,
}

/// The list, whether or not an object is around it.
struct File(Bounded<Entry>);

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListOrObject)
    }
}

struct ListOrObject;

impl<'de> Visitor<'de> for ListOrObject {
    type Value = File;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of leases, or an object that has one")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<File, A::Error> {
        Bounded::deserialize(SeqAccessDeserializer::new(elements)).map(File)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<File, A::Error> {
        Object::deserialize(MapAccessDeserializer::new(members)).map(|object| File(object.leases))
    }
}

/// Takes in a whole file.
pub fn take(reader: impl Read, leases: &mut Leases) -> Result<(), serde_json::Error> {
    let File(Bounded(entries)) = serde_json::from_reader(reader)?;
    for entry in entries {
        let lease = Lease {
            mac: entry.mac(),
            name: entry
                .hostname
                .and_then(|Text(name)| HostName::reduced(&name)),
            expires: (entry
                .expiration
                .filter(|expiration| *expiration != FOR_EVER))
            .map(|microseconds| microseconds / 1_000_000),
        };
        leases.put(entry.address.into(), lease);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::lease::tests::shown;
    use super::*;

    const FILE: &str = include_str!("../../tests/fixtures/leases/networkd.json");
    const THEN: u64 = 1_795_566_395;

    fn read(text: &str) -> Result<Vec<String>, serde_json::Error> {
        let mut leases = Leases::new(THEN, 9);
        take(text.as_bytes(), &mut leases)?;
        Ok(shown(&leases, THEN))
    }

    #[test]
    fn what_networkd_writes_is_read() {
        let found = read(FILE).unwrap();
        assert_eq!(
            found,
            [
                "192.168.1.21 camera 02:00:00:00:00:21",
                "192.168.1.23 - 02:00:00:00:00:23"
            ],
            "the radio's is over"
        );
    }

    #[test]
    fn the_list_alone_is_a_file_too() {
        let list = &FILE[FILE.find("[{").unwrap()..FILE.rfind('}').unwrap()];
        assert_eq!(read(list).unwrap(), read(FILE).unwrap());
        assert_eq!(read("{\"BootID\": \"0\"}").unwrap(), [""; 0]);
    }

    #[test]
    fn a_client_identifier_of_another_kind_is_no_hardware_address() {
        for (members, mac) in [
            ("\"ClientId\":[255,2,0,0,0,0,34]", "-"),
            ("\"ClientId\":[1,2,0,0,0,0]", "-"),
            ("\"ClientId\":[1,2,0,0,0,0,34]", "02:00:00:00:00:22"),
            (
                "\"ClientId\":[1,2,0,0,0,0,34],\"HardwareAddressType\":32",
                "-",
            ),
        ] {
            let text = format!("[{{\"Address\":[10,0,0,1],\"Hostname\":\"a b\",{members}}}]");
            assert_eq!(read(&text).unwrap(), [format!("10.0.0.1 a_b {mac}")]);
        }
    }

    #[test]
    fn half_a_file_is_an_error() {
        assert!(read(&FILE[..FILE.len() / 2]).is_err());
        assert!(read("3").is_err());
    }
}
