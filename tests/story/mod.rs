//! A story of the engine: a reading a second of one counter that counts what each second brings.

use std::sync::Arc;
use std::time::Duration;

use flowctl::ask::Outcome;
use flowctl::config::{self, Config, Format};
use flowctl::engine::Engine;
use flowctl::kernel::nft::CounterRecord;
use flowctl::meter::{Carried, Meter};
use flowctl::units::{Tick, Uptime};

/// Bytes of one second at a rate that is above raise, and at one that is below clear.
pub const ABOVE: u64 = 200;
pub const BELOW: u64 = 10;

pub const CONFIG: &str = r#"
[interfaces.wan]
device = "wan0"
[thresholds.full]
counter = "wan_out"
raise = "800bit/s"
hold = "2s"
release = "2s"
"#;

/// The engine and its meter, and a counter that counts what each second brings.
pub struct Story {
    pub config: Arc<Config>,
    pub engine: Engine,
    pub meter: Meter,
    pub second: u64,
    pub kernel: u64,
}

pub fn parse(text: &str) -> Arc<Config> {
    Arc::new(config::parse(text, Format::Toml).unwrap())
}

pub fn tick(second: u64) -> Tick {
    Tick {
        sequence: second,
        at: Uptime(Duration::from_secs(100 + second)),
        wall: jiff::Timestamp::from_second(1_795_410_000 + second as i64).unwrap(),
    }
}

impl Story {
    pub fn of(text: &str) -> Story {
        let config = parse(text);
        let names = config.counters.iter().map(|counter| counter.name.clone());
        let meter = Meter::new(names.map(|name| (name, Carried::default())));
        let engine = Engine::new(Arc::clone(&config), tick(0));
        let mut story = Story {
            config,
            engine,
            meter,
            second: 0,
            kernel: 1_000_000,
        };
        story.observe(true);
        story
    }

    /// One reading after a second in which that many bytes were counted.
    pub fn second(&mut self, bytes: u64) -> Outcome {
        self.second += 1;
        self.kernel += bytes;
        self.observe(true)
    }

    /// One reading that has no counters, as from an interrupted dump.
    pub fn blind_second(&mut self, bytes: u64) -> Outcome {
        self.second += 1;
        self.kernel += bytes;
        self.observe(false)
    }

    fn observe(&mut self, sees: bool) -> Outcome {
        let now = tick(self.second);
        self.meter.begin();
        for counter in self.config.counters.iter().filter(|_| sees) {
            let name = counter.name.as_str();
            let bytes = if name == "wan_out" { self.kernel } else { 0 };
            let record = CounterRecord {
                name: name.as_bytes(),
                bytes,
                packets: bytes / 10,
            };
            self.meter.record(record);
        }
        self.meter.end(now.at);
        self.engine.observe(now, &self.meter)
    }

    pub fn reload(&mut self, text: &str) -> Outcome {
        self.reload_as(parse(text))
    }

    pub fn reload_as(&mut self, config: Arc<Config>) -> Outcome {
        let names = config.counters.iter().map(|counter| counter.name.clone());
        let counters = names.map(|name| (name, Carried::default()));
        let meter = self.meter.reconfigured(counters);
        let now = tick(self.second);
        let outcome = self
            .engine
            .reconfigure(Arc::clone(&config), now, &self.meter);
        (self.config, self.meter) = (config, meter);
        outcome
    }

    pub fn stop(&mut self) -> Outcome {
        self.engine.stop(tick(self.second), &self.meter)
    }
}
