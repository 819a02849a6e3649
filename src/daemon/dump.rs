//! One dump of a table's counters into a pass of the meter: what others interrupt is repeated.

use crate::kernel::error::KernelError;
use crate::kernel::nftables::{CountersRead, Nftables};
use crate::meter::Meter;
use crate::units::TableFamily;

/// How often an interrupted dump is repeated before what came is used.
const DUMP_ATTEMPTS: u32 = 3;

/// Hands the counters of a table of ours to the pass that `meter` has begun.
pub fn dump(
    nftables: &mut Nftables,
    table: &str,
    meter: &mut Meter,
) -> Result<CountersRead, KernelError> {
    until_undisturbed(|| {
        meter.repeat();
        nftables.counters(TableFamily::Inet, table, |record| meter.record(record))
    })
}

/// Repeats a dump that was interrupted; if it stays so, what came is used.
pub fn until_undisturbed(
    mut dump: impl FnMut() -> Result<CountersRead, KernelError>,
) -> Result<CountersRead, KernelError> {
    let mut read = dump()?;
    for _ in 1..DUMP_ATTEMPTS {
        if !read.interrupted {
            break;
        }
        read = dump()?;
    }
    Ok(read)
}

/// What the table's counters hold now is nothing that they counted. An error where a counter may have been left out, as
/// what it holds would be taken for traffic.
pub fn rebase(nftables: &mut Nftables, table: &str, meter: &mut Meter) -> Result<(), KernelError> {
    let read = until_undisturbed(|| {
        nftables.counters(TableFamily::Inet, table, |record| meter.rebase(record))
    })?;
    if read.interrupted {
        return Err(KernelError::Contended {
            operation: "read the counters",
            attempts: DUMP_ATTEMPTS,
        });
    }
    Ok(())
}
