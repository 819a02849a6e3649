//! The lab's network: a router between the internet (`wan0`), a LAN (bridge `br-lan`) and things (bridge `br-iot`),
//! each host in a namespace of its own, IPv4 and IPv6. Neighbours are known beforehand, so that not one packet
//! passes that no generator sent, and none is lost while an address is being asked for.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::firewall::Firewall;
use super::link::{Links, NewDevice};
use super::stillness::Announcer;
use super::sysctl::{self, ConntrackSysctls};
use super::traffic::Endpoint;
use super::{Family, LabError, Namespace, numbering, stillness};

/// The router's device towards the internet.
pub const WAN: &str = "wan0";
/// The router's device towards the LAN hosts.
pub const LAN: &str = "br-lan";
/// The router's device towards the things.
pub const IOT: &str = "br-iot";
/// The only device of a host or of the internet, besides `lo`.
pub const UPLINK: &str = "eth0";

const MOST_HOSTS: usize = 64;
const FIRST_HOST: u8 = 11;
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const WAN_NUMBER: u8 = 0;

/// What kind of lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabOptions {
    /// How many hosts the LAN has, at most 64. Without any there is no `br-lan`.
    pub lan_hosts: usize,
    /// How many things there are, at most 64. Without any there is no `br-iot`.
    pub iot_hosts: usize,
    /// Whether IPv4 leaves with the router's address. Without, and without other firewall rules, the router has no
    /// conntrack.
    pub masquerade: bool,
    /// Whether IPv6 does too.
    pub masquerade_v6: bool,
    /// What conntrack keeps about flows; `None` leaves the kernel's defaults, as one must without any firewall rule
    /// where conntrack is a module that is not loaded yet.
    pub conntrack: Option<ConntrackSysctls>,
    /// Whether bridged frames pass the inet hooks.
    pub bridge_nf: bool,
    /// Whether TCP segments may be merged into large packets, as they are on most machines.
    pub merge: bool,
}

impl Default for LabOptions {
    fn default() -> LabOptions {
        LabOptions {
            lan_hosts: 3,
            iot_hosts: 1,
            masquerade: true,
            masquerade_v6: false,
            conntrack: Some(ConntrackSysctls::default()),
            bridge_nf: false,
            merge: true,
        }
    }
}

/// A host inside.
#[derive(Debug)]
pub struct Host {
    /// Where it is.
    pub namespace: Namespace,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
    /// The hardware address of its device.
    pub mac: [u8; 6],
}

impl Host {
    /// One end of a generator's traffic; port 0 lets the kernel choose.
    pub fn end(&self, family: Family, port: u16) -> Endpoint<'_> {
        let address = match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        };
        Endpoint {
            namespace: &self.namespace,
            address: SocketAddr::new(address, port),
        }
    }
}

/// A network that exists while this value, a generator or a thread in it does.
#[derive(Debug)]
pub struct Lab {
    /// Where flowctl runs.
    pub router: Namespace,
    /// All servers, and the provider's router.
    pub internet: Namespace,
    /// 10.77.1.11 and fd77:1::11 onwards.
    pub lan: Vec<Host>,
    /// 10.77.2.11 and fd77:2::11 onwards.
    pub iot: Vec<Host>,
}

impl Lab {
    /// Builds it and waits until every link is operational and keeps still.
    pub fn build(options: &LabOptions) -> Result<Lab, LabError> {
        let router = namespace("router")?;
        sysctl::forward(&router)?;
        let internet = namespace("internet")?;
        let mut links = Links::open(&router)?;
        connect_internet(&mut links, &internet, options.merge)?;
        let mut builder = Builder {
            links,
            merge: options.merge,
        };
        let lan = builder.add_subnet("lan", LAN, 1, check("lan_hosts", options.lan_hosts)?)?;
        let iot = builder.add_subnet("iot", IOT, 2, check("iot_hosts", options.iot_hosts)?)?;
        let lab = Lab {
            router,
            internet,
            lan,
            iot,
        };
        lab.apply(options)?;
        lab.wait_up(&mut builder.links)?;
        lab.wait_announced()?;
        lab.wait_still(&mut builder.links)?;
        Ok(lab)
    }

    /// A server on the internet, counted from 0; there are ten. Port 0 lets the kernel choose.
    pub fn server(&self, family: Family, position: u8, port: u16) -> Endpoint<'_> {
        let address = SocketAddr::new(numbering::server(family, position), port);
        Endpoint {
            namespace: &self.internet,
            address,
        }
    }

    /// The router itself, by its address on the uplink.
    pub fn router_end(&self, family: Family, port: u16) -> Endpoint<'_> {
        let address = SocketAddr::new(self.wan_address(family), port);
        Endpoint {
            namespace: &self.router,
            address,
        }
    }

    /// The router's address on the uplink: what masquerading shows to the internet.
    pub fn wan_address(&self, family: Family) -> IpAddr {
        numbering::uplink(family, 2)
    }

    /// The router's own firewall, for port forwards and drops.
    pub fn firewall(&self) -> Result<Firewall, LabError> {
        Firewall::open(&self.router)
    }

    /// Gives a host behind that bridge one more address, known to the router as that of its neighbour. Returns when
    /// the kernel has said aloud what it says of a new address.
    pub fn add_address(&self, bridge: &str, host: &Host, network: IpNet) -> Result<(), LabError> {
        let mut router = Links::open(&self.router)?;
        router.add_neighbour(bridge, network.addr(), host.mac)?;
        let announcer = Announcer::of_address(&host.namespace)?;
        Links::open(&host.namespace)?.add_address(UPLINK, network)?;
        if network.addr().is_ipv6() {
            stillness::wait_for_reports(&[announcer])?;
        }
        self.wait_still(&mut router)
    }

    fn apply(&self, options: &LabOptions) -> Result<(), LabError> {
        let wanted = [
            (options.masquerade, Family::V4),
            (options.masquerade_v6, Family::V6),
        ];
        for (_, family) in wanted.into_iter().filter(|(wanted, _)| *wanted) {
            self.firewall()?.masquerade(family, WAN)?;
        }
        if let Some(conntrack) = options.conntrack {
            conntrack.apply(&self.router)?;
        }
        sysctl::bridge_nf(&self.router, options.bridge_nf)
    }

    fn bridges(&self) -> Vec<&'static str> {
        let subnets = [(&self.lan, LAN), (&self.iot, IOT)];
        let used = subnets.into_iter().filter(|(hosts, _)| !hosts.is_empty());
        used.map(|(_, bridge)| bridge).collect()
    }

    fn wait_up(&self, router: &mut Links) -> Result<(), LabError> {
        for host in self.lan.iter().chain(&self.iot) {
            Links::open(&host.namespace)?.wait_up(&[UPLINK], LONGEST_WAIT)?;
        }
        Links::open(&self.internet)?.wait_up(&[UPLINK], LONGEST_WAIT)?;
        router.wait_up(&[WAN], LONGEST_WAIT)?;
        router.wait_up(&self.bridges(), LONGEST_WAIT)
    }

    fn wait_announced(&self) -> Result<(), LabError> {
        let hosts = || self.lan.iter().chain(&self.iot);
        // A port of the bridge for each host is the router's too.
        let of_router = self.bridges().len() + 1 + hosts().count();
        let others = hosts().map(|host| &host.namespace).chain([&self.internet]);
        let mut announcers = vec![Announcer::of_devices(&self.router, of_router)?];
        for namespace in others {
            announcers.push(Announcer::of_devices(namespace, 1)?);
        }
        stillness::wait_for_reports(&announcers)
    }

    /// Waits for the last packets that no generator sends, so that whoever counts from here counts generators only.
    fn wait_still(&self, router: &mut Links) -> Result<(), LabError> {
        let devices: Vec<&str> = self.bridges().into_iter().chain([WAN]).collect();
        stillness::wait(router, &devices)
    }
}

struct Builder {
    links: Links,
    merge: bool,
}

impl Builder {
    fn add_subnet(
        &mut self,
        name: &str,
        bridge: &str,
        number: u8,
        hosts: u8,
    ) -> Result<Vec<Host>, LabError> {
        if hosts == 0 {
            return Ok(Vec::new());
        }
        let device = NewDevice {
            name: bridge,
            mac: Some(numbering::mac(number, 1)),
            merge: self.merge,
        };
        self.links.add_bridge(device)?;
        self.links.up(bridge)?;
        for family in [Family::V4, Family::V6] {
            let address = numbering::inside(family, number, 1);
            self.links
                .add_address(bridge, numbering::on_link(address))?;
        }
        (0..hosts)
            .map(|position| self.add_host(name, bridge, number, position))
            .collect()
    }

    fn add_host(
        &mut self,
        name: &str,
        bridge: &str,
        subnet: u8,
        position: u8,
    ) -> Result<Host, LabError> {
        let number = FIRST_HOST + position;
        let namespace = namespace(&format!("{name}{number}"))?;
        let port = format!("{name}{number}");
        let mac = numbering::mac(subnet, number);
        let near = NewDevice {
            name: &port,
            mac: None,
            merge: self.merge,
        };
        let far = NewDevice {
            name: UPLINK,
            mac: Some(mac),
            merge: self.merge,
        };
        self.links.add_veth(near, far, &namespace)?;
        self.links.enslave(&port, bridge)?;
        self.links.up(&port)?;
        let mut host = Links::open(&namespace)?;
        host.up(UPLINK)?;
        for family in [Family::V4, Family::V6] {
            let address = numbering::inside(family, subnet, number);
            let gateway = numbering::inside(family, subnet, 1);
            host.add_address(UPLINK, numbering::on_link(address))?;
            host.add_route(numbering::anywhere(family), gateway)?;
            host.add_neighbour(UPLINK, gateway, numbering::mac(subnet, 1))?;
            self.links.add_neighbour(bridge, address, mac)?;
        }
        Ok(Host {
            namespace,
            v4: numbering::inside(Family::V4, subnet, number),
            v6: numbering::inside(Family::V6, subnet, number),
            mac,
        })
    }
}

fn connect_internet(router: &mut Links, internet: &Namespace, merge: bool) -> Result<(), LabError> {
    let (ours, theirs) = (numbering::mac(WAN_NUMBER, 2), numbering::mac(WAN_NUMBER, 1));
    let near = NewDevice {
        name: WAN,
        mac: Some(ours),
        merge,
    };
    let far = NewDevice {
        name: UPLINK,
        mac: Some(theirs),
        merge,
    };
    router.add_veth(near, far, internet)?;
    router.up(WAN)?;
    let mut links = Links::open(internet)?;
    links.up(UPLINK)?;
    for family in [Family::V4, Family::V6] {
        let (us, provider) = (numbering::uplink(family, 2), numbering::uplink(family, 1));
        router.add_address(WAN, numbering::on_link(us))?;
        router.add_neighbour(WAN, provider, theirs)?;
        router.add_route(numbering::anywhere(family), provider)?;
        links.add_address(UPLINK, numbering::on_link(provider))?;
        links.add_neighbour(UPLINK, us, ours)?;
        links.add_route(numbering::all_inside(family), us)?;
        for position in 0..numbering::SERVERS {
            links.add_address("lo", numbering::alone(numbering::server(family, position)))?;
        }
    }
    Ok(())
}

/// A namespace with nothing but `lo`, prepared for devices that keep still.
fn namespace(name: &str) -> Result<Namespace, LabError> {
    let namespace = Namespace::new(name)?;
    sysctl::quiet(&namespace)?;
    Links::open(&namespace)?.up("lo")?;
    Ok(namespace)
}

fn check(option: &'static str, hosts: usize) -> Result<u8, LabError> {
    match u8::try_from(hosts) {
        Ok(count) if hosts <= MOST_HOSTS => Ok(count),
        _ => Err(LabError::TooMany {
            option,
            value: hosts,
            most: MOST_HOSTS,
        }),
    }
}
