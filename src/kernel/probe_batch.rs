//! nf_tables on the wire, writing side, temporary rules: one atomic batch from what the table of drilldowns holds to what
//! it shall hold. What counts and stays is not mentioned, so it goes on; the rules, which are few, are written anew.

use super::attr::Writer;
use super::batch::{Batch, ELEMENTS_A_MESSAGE, PACKET_BROADCAST, PACKET_MULTICAST};
use super::expression;
use super::nft::{message, table_flag};
use super::set::{self, KeySet};
use super::socket::{ACK, CREATE, EXCLUSIVE};
use crate::plan::probe::{Rules, SOURCES_MAX, Set, SetContent, TABLE_COMMENT};

/// The ruleset's generation does not matter: nobody else can change what is changed here.
const ANY_GENERATION: u32 = 0;
/// ICMP_DEST_UNREACH, _SOURCE_QUENCH, _REDIRECT, _TIME_EXCEEDED and _PARAMETERPROB of linux/icmp.h: those that carry the
/// beginning of a packet of another flow.
const ICMP_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];

impl Batch {
    /// Asks whether the kernel would make that table such that it goes with its socket; nothing of it is applied.
    pub fn ask_owned(table: &str) -> Batch {
        let mut batch = Batch::begin(ANY_GENERATION);
        batch.owned(table, EXCLUSIVE | ACK);
        batch
    }

    /// Makes the table with these rules. Refused where there is one of that name.
    pub fn make_owned(table: &str, rules: &Rules) -> Batch {
        let mut batch = Batch::begin(ANY_GENERATION);
        batch.owned(table, EXCLUSIVE);
        batch.change(table, &Rules::default(), rules)
    }

    /// From `old`, known to be in force, to `new`.
    pub fn change_owned(table: &str, old: &Rules, new: &Rules) -> Batch {
        let mut batch = Batch::begin(ANY_GENERATION);
        batch.add("the rules", message::DEL_RULE, 0, |w| w.text(1, table));
        batch.change(table, old, new)
    }

    /// Takes the table away.
    pub fn remove_owned(table: &str) -> Batch {
        Batch::remove(table, ANY_GENERATION)
    }

    fn owned(&mut self, table: &str, flags: u16) {
        self.commented_table(table, TABLE_COMMENT, table_flag::OWNER, flags);
    }

    fn change(mut self, table: &str, old: &Rules, new: &Rules) -> Batch {
        for set in old.sets.iter().filter(|set| !new.sets.contains(set)) {
            self.named("set", &set.name, message::DEL_SET, table, 2);
        }
        for chain in &old.chains {
            if new.chains.iter().all(|other| other.name != chain.name) {
                self.named("chain", &chain.name, message::DEL_CHAIN, table, 3);
            }
        }
        for counter in old
            .counters
            .iter()
            .filter(|name| !new.counters.contains(name))
        {
            self.remove_counter(table, counter);
        }
        for counter in new
            .counters
            .iter()
            .filter(|name| !old.counters.contains(name))
        {
            self.counter(table, counter);
        }
        let added = new.sets.iter().filter(|set| !old.sets.contains(set));
        for (set, id) in added.zip(1..) {
            self.set(table, set, id);
        }
        for chain in &new.chains {
            self.chain(table, &chain.name, chain.base);
        }
        for chain in &new.chains {
            for rule in &chain.rules {
                self.rule(table, &chain.name, |w| expression::write_terms(w, rule));
            }
        }
        // Changes nothing: the answer to the last message is that to the whole batch.
        self.owned(table, ACK);
        self.end()
    }

    fn set(&mut self, table: &str, set: &Set, id: u32) {
        self.add_named("set", &set.name, message::NEW_SET, CREATE, |w| {
            w.text(1, table);
            w.text(2, &set.name);
            match &set.content {
                SetContent::Keys { fields, keys } => {
                    set::write(w, &KeySet::of_keys(fields, keys), id)
                }
                SetContent::Sources(family) => {
                    set::write_dynamic(w, family.source(), SOURCES_MAX, id)
                }
                SetContent::IcmpErrors => set::write_icmp_types(w, id),
                SetContent::Looped => set::write_packet_types(w, id),
            }
        });
        match &set.content {
            SetContent::Keys { fields, keys } => {
                let written = KeySet::of_keys(fields, keys);
                for chunk in keys.chunks(ELEMENTS_A_MESSAGE) {
                    self.set_elements(table, set, |w| {
                        for key in chunk {
                            set::write_element(w, &written, key, None);
                        }
                    });
                }
            }
            SetContent::Sources(_) => {}
            SetContent::IcmpErrors => self.set_elements(table, set, |w| single(w, &ICMP_ERRORS)),
            SetContent::Looped => {
                let looped = [PACKET_BROADCAST, PACKET_MULTICAST];
                self.set_elements(table, set, |w| single(w, &looped));
            }
        }
    }

    fn set_elements(&mut self, table: &str, set: &Set, elements: impl FnOnce(&mut Writer)) {
        let what = "elements of set";
        self.add_named(what, &set.name, message::NEW_ELEMENT, CREATE, |w| {
            w.text(1, table);
            w.text(2, &set.name);
            w.nest(3, elements);
        });
    }
}

fn single(w: &mut Writer, keys: &[u8]) {
    for key in keys {
        w.nest(1, |w| set::write_key(w, 1, &[*key]));
    }
}
