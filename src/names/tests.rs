use std::path::PathBuf;

use super::*;
use crate::config::{Format, parse};
use crate::kernel::neighbours::Neighbour;

/// Names from files of the test's own, beside neighbours that the kernel may have seen.
struct Bench {
    folder: tempfile::TempDir,
    names: Names,
}

impl Bench {
    fn new(hosts: &str) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let leases = path("leases");
        let text = format!("names.leases = {leases:?}\n[hosts]\n{hosts}\n");
        let config = parse(&text, Format::Toml).unwrap();
        let mut names = Names::new(&config);
        names.hosts = Listing::new(&path("hosts"), hosts_file::line);
        names.ethers = Listing::new(&path("ethers"), ethers::line);
        let bench = Bench { folder, names };
        bench.write("leases", "");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn meet(&mut self, address: &str, mac: &str) {
        self.names.neighbourhood.learn(&[Neighbour {
            device: 3,
            address: address.parse().unwrap(),
            mac: Mac::parse(mac).unwrap(),
        }]);
    }

    fn refresh(&mut self) {
        assert_eq!(self.names.refresh(Duration::ZERO), Vec::<String>::new());
    }

    fn known(&self, address: &str) -> String {
        let Known { name, mac } = self.names.known(address.parse().unwrap());
        let text = |part: Option<String>| part.unwrap_or("-".to_owned());
        format!("{} {}", text(name), text(mac))
    }
}

#[test]
fn the_first_of_all_that_know_a_name_is_believed() {
    let all = "by_address = \"10.0.0.5\"\nby_mac = \"2:0:0:0:0:5\"";
    let mut bench = Bench::new(all);
    bench.write("leases", "0 2:0:0:0:0:5 10.0.0.5 by_lease *\n");
    bench.write("hosts", "10.0.0.5 by_hosts\n");
    bench.write("ethers", "2:0:0:0:0:5 by_ethers\n");
    bench.refresh();
    let mac = "02:00:00:00:00:05";
    assert_eq!(bench.known("10.0.0.5"), format!("by_address {mac}"));
    assert_eq!(bench.known("::ffff:10.0.0.5"), format!("by_address {mac}"));
    bench.names.configured.by_address.clear();
    assert_eq!(
        bench.known("10.0.0.5"),
        format!("by_mac {mac}"),
        "the lease knows it"
    );
    bench.names.configured.by_mac.clear();
    assert_eq!(bench.known("10.0.0.5"), format!("by_lease {mac}"));
    bench.write("leases", "0 2:0:0:0:0:5 10.0.0.5 * *\n");
    bench.names.places = Places::new(Some(&[bench.path("leases")]));
    bench.refresh();
    assert_eq!(bench.known("10.0.0.5"), format!("by_hosts {mac}"));
    bench.write("hosts", "");
    bench.refresh();
    assert_eq!(bench.known("10.0.0.5"), format!("by_ethers {mac}"));
    assert_eq!(bench.known("10.0.0.6"), "- -");
}

#[test]
fn the_neighbour_table_knows_a_device_better_than_its_lease() {
    let mut bench = Bench::new("tv = \"2:0:0:0:0:6\"");
    bench.write("leases", "0 2:0:0:0:0:5 10.0.0.5 nas *\n");
    bench.meet("10.0.0.5", "2:0:0:0:0:6");
    bench.refresh();
    assert_eq!(bench.known("10.0.0.5"), "tv 02:00:00:00:00:06");
}

#[test]
fn a_privacy_address_has_the_name_that_the_device_took_last() {
    let mut bench = Bench::new("");
    let far = clock::now().wall + 1000;
    let leases = format!(
        "{far} 2:0:0:0:0:5 10.0.0.5 old *\n{} 2:0:0:0:0:5 10.0.0.9 nas *\n{far} 2:0:0:0:0:6 10.0.0.6 tv *\n",
        far + 1
    );
    bench.write("leases", &leases);
    bench.refresh();
    bench.meet("fd00::aaaa", "2:0:0:0:0:5");
    bench.meet("10.0.0.7", "2:0:0:0:0:5");
    assert_eq!(bench.known("fd00::aaaa"), "nas 02:00:00:00:00:05");
    assert_eq!(
        bench.known("10.0.0.7"),
        "- 02:00:00:00:00:05",
        "another IPv4 address behind it may be another host"
    );
    bench.names.now = far;
    assert_eq!(bench.known("10.0.0.6"), "- -", "by then it is nobody's");
}

#[test]
fn addresses_of_one_device_are_joined_until_all_are_forgotten() {
    let mut bench = Bench::new("");
    bench.meet("fd00::5", "2:0:0:0:0:5");
    bench.meet("10.0.0.5", "2:0:0:0:0:5");
    let device = |bench: &Bench, text: &str| bench.names.device(text.parse().unwrap());
    assert!(device(&bench, "fd00::5").is_some());
    assert_eq!(device(&bench, "fd00::5"), device(&bench, "::ffff:10.0.0.5"));
    bench.names.forget();
    assert_eq!(device(&bench, "fd00::5"), None);
}

#[test]
fn new_names_have_read_nothing() {
    let bench = Bench::new("nas = \"10.0.0.5\"");
    bench.write("leases", "0 2:0:0:0:0:6 10.0.0.6 tv *\n");
    assert_eq!(bench.known("10.0.0.5"), "nas -");
    assert_eq!(bench.known("10.0.0.6"), "- -");
}
