//! What the file of `--config` says of one image.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};
use virtio_blk_dev::{ImageFormat, RateLimits, Serial};
use virtio_worker::CpuList;

use super::disk::{Cache, DiskSettings};
use crate::{
    args::{self, MAX_POLL_US},
    engine_kind::EngineKind,
    rate::{Bps, Iops},
};

/// What the file says of one image.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DiskTable {
    #[serde(deserialize_with = "serial")]
    serial: Option<Serial>,
    #[serde(deserialize_with = "word")]
    format: Option<ImageFormat>,
    pub(super) engine: Option<EngineKind>,
    direct: Option<bool>,
    #[serde(deserialize_with = "logical_block_size")]
    pub(super) logical_block_size: Option<u32>,
    #[serde(deserialize_with = "queues")]
    queues: Option<u16>,
    cache: Option<Cache>,
    #[serde(deserialize_with = "word")]
    iops: Option<Iops>,
    #[serde(deserialize_with = "word")]
    bps: Option<Bps>,
    #[serde(deserialize_with = "word")]
    cpus: Option<CpuList>,
    #[serde(deserialize_with = "poll_us")]
    poll_us: Option<u64>,
    discard: Option<bool>,
}

impl DiskTable {
    /// How its disk is served, where every other is served as `all` says.
    pub(super) fn over(self, all: &DiskSettings) -> DiskSettings {
        DiskSettings {
            serial: self.serial.or(all.serial),
            format: self.format.unwrap_or(all.format),
            engine: self.engine.unwrap_or(all.engine),
            direct: self.direct.unwrap_or(all.direct),
            logical_block_size: self.logical_block_size.or(all.logical_block_size),
            queues: self.queues.unwrap_or(all.queues),
            queue_size: all.queue_size,
            cache: self.cache.unwrap_or(all.cache),
            limits: RateLimits {
                ops: self.iops.map(|Iops(rate)| rate).or(all.limits.ops),
                bytes: self.bps.map(|Bps(rate)| rate).or(all.limits.bytes),
            },
            cpus: self.cpus.unwrap_or_else(|| all.cpus.clone()),
            poll: self.poll_us.map_or(all.poll, Duration::from_micros),
            discard: self.discard.unwrap_or(all.discard),
        }
    }
}

/// A value that is one word, which for some is a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Text(String),
    Number(u64),
}

fn word<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = match Word::deserialize(deserializer)? {
        Word::Text(text) => text,
        Word::Number(number) => number.to_string(),
    };
    text.parse().map(Some).map_err(D::Error::custom)
}

fn serial<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Serial>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Serial::new(&text).map(Some).map_err(D::Error::custom)
}

fn logical_block_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let bytes = u64::deserialize(deserializer)?.to_string();
    args::logical_block_size(&bytes).map(Some).map_err(D::Error::custom)
}

fn queues<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    match u16::deserialize(deserializer)? {
        queues @ 1..=256 => Ok(Some(queues)),
        queues => Err(D::Error::custom(format!("queues is {queues}, but should be from 1 to 256"))),
    }
}

fn poll_us<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match u64::deserialize(deserializer)? {
        us @ ..=MAX_POLL_US => Ok(Some(us)),
        us => {
            Err(D::Error::custom(format!("poll_us is {us}, but should be at most {MAX_POLL_US}")))
        }
    }
}
