//! Spreads the elements of one shape over as few maps as needed: within one map no two elements match the same
//! packet, because the kernel refuses overlapping keys and a packet finds only one element a map.

use std::collections::{BTreeSet, HashMap};

use super::ruleset::{Element, KeyValue};

/// The elements, layer by layer, each sorted by key. Elements of one counter never overlap each other (a list is
/// a union, made disjoint before), so an overlap is always one of different counters.
pub fn spread(mut elements: Vec<Element>) -> Vec<Vec<Element>> {
    // Short ones first: whatever overlaps in the first field is then already placed, as an ancestor or equal.
    elements.sort_by(|a, b| (first_length(a), a).cmp(&(first_length(b), b)));
    let mut layers: Vec<Layer> = Vec::new();
    for element in elements {
        match layers.iter_mut().find(|layer| !layer.conflicts(&element)) {
            Some(layer) => layer.place(element),
            None => {
                let mut layer = Layer::default();
                layer.place(element);
                layers.push(layer);
            }
        }
    }
    layers.into_iter().map(Layer::into_sorted).collect()
}

fn first_length(element: &Element) -> u8 {
    element.key.first().map_or(0, KeyValue::length)
}

#[derive(Default)]
struct Layer {
    elements: Vec<Element>,
    positions_by_first: HashMap<KeyValue, Vec<usize>>,
    first_lengths: BTreeSet<u8>,
}

impl Layer {
    fn place(&mut self, element: Element) {
        if let Some(first) = element.key.first() {
            self.positions_by_first
                .entry(first.clone())
                .or_default()
                .push(self.elements.len());
        }
        self.first_lengths.insert(first_length(&element));
        self.elements.push(element);
    }

    fn conflicts(&self, element: &Element) -> bool {
        let Some(first) = element.key.first() else {
            return false;
        };
        self.first_lengths
            .range(..=first.length())
            .filter_map(|&length| first.ancestor(length))
            .any(|ancestor| self.conflicts_below(&ancestor, element))
    }

    fn conflicts_below(&self, first: &KeyValue, element: &Element) -> bool {
        let Some(positions) = self.positions_by_first.get(first) else {
            return false;
        };
        let mut placed = positions.iter().map(|position| &self.elements[*position]);
        placed.any(|placed| placed.overlaps(element))
    }

    fn into_sorted(self) -> Vec<Element> {
        let mut elements = self.elements;
        elements.sort();
        elements
    }
}
