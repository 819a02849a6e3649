//! The table's socket, kept by the service manager while one daemon ends and the next one comes: whether what was handed
//! over is that, and of this network namespace. What is not is let go of, so that it owns nothing in the way.

use std::sync::mpsc;
use std::time::Duration;

use crate::config::{Protect, TableConfig};
use crate::kernel::error::KernelError;
use crate::kernel::handed::{Handed, Unusable};
use crate::kernel::nftables::Nftables;
use crate::kernel::socket::Netlink;
use crate::sink::service::{Service, TABLE};
use crate::units::TableFamily;

/// How long the service manager may take to close what it is to let go of.
const PATIENCE_ATTEMPTS: u32 = 100;
const PATIENCE_STEP: Duration = Duration::from_millis(50);

/// What became of what was handed over.
#[derive(Default)]
pub struct Kept {
    /// The socket that owns the table, to change it with.
    pub nftables: Option<Nftables>,
    /// Why there is none though something was handed over.
    pub note: Option<String>,
}

/// Why a socket that was kept is of no use now.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("the configuration does not want the table protected any more")]
    Unwanted,
    #[error("table.static is set, so the table is one that nobody owns")]
    Static,
    #[error("it does not own table inet {0} of this network namespace")]
    Elsewhere(String),
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Takes the table's socket out of `handed`, closes all the rest, and lets go of one that is of no use.
pub fn take_up(
    handed: Vec<Handed>,
    config: &TableConfig,
    service: &Service,
) -> Result<Kept, KernelError> {
    // What has another name is not flowctl's, and closed here.
    let Some(socket) = handed.into_iter().find(|handed| handed.name() == TABLE) else {
        return Ok(Kept::default());
    };
    let mut fresh = Nftables::open()?;
    let (port, useless) = match socket.netfilter() {
        Ok(netlink) => {
            let port = netlink.port();
            match judge(netlink, config, &mut fresh) {
                Ok(nftables) => {
                    return Ok(Kept {
                        nftables: Some(nftables),
                        note: None,
                    });
                }
                Err(useless) => (Some(port), useless),
            }
        }
        Err(unusable) => (None, unusable.into()),
    };
    let forgotten = service.forget();
    if let Some(port) = port {
        await_release(&mut fresh, port)?;
    }
    let mut note = format!("the socket that was kept for the table is let go of: {useless}");
    if let Err(error) = forgotten {
        note.push_str(&format!(
            ", but the service manager cannot be told: {error}"
        ));
    }
    Ok(Kept {
        nftables: None,
        note: Some(note),
    })
}

fn judge(
    netlink: Netlink,
    config: &TableConfig,
    fresh: &mut Nftables,
) -> Result<Nftables, Useless> {
    if config.is_static {
        return Err(Useless::Static);
    }
    if config.protect == Protect::Off {
        return Err(Useless::Unwanted);
    }
    let mut kept = Nftables::through(netlink);
    let name = &config.name;
    // Ports and handles are numbers of a namespace: one table seen through both sockets, and owned by the one, is here.
    let here = (fresh.table(TableFamily::Inet, name)?)
        .filter(|table| table.owner == Some(kept.port()))
        .map(|table| table.handle);
    let there = kept.table(TableFamily::Inet, name)?;
    let same = here.is_some() && there.map(|table| table.handle) == here;
    same.then_some(kept)
        .ok_or_else(|| Useless::Elsewhere(name.clone()))
}

/// Waits, not for ever, until that port owns none of flowctl's tables: the service manager closes when it has time.
fn await_release(fresh: &mut Nftables, port: u32) -> Result<(), KernelError> {
    let (_never, silence) = mpsc::channel::<()>();
    for _ in 0..PATIENCE_ATTEMPTS {
        if !fresh.owns_any(port)? {
            break;
        }
        // Nothing is ever sent: this only waits.
        let _ = silence.recv_timeout(PATIENCE_STEP);
    }
    Ok(())
}
