//! Numbers as an operator writes them: `500`, `10K`, `2G`.

/// A number, with `K`, `M` or `G` behind it for powers of `unit`.
pub fn amount(text: &str, unit: u64) -> Option<u64> {
    let power = match text.as_bytes().last()? {
        b'K' | b'k' => 1,
        b'M' | b'm' => 2,
        b'G' | b'g' => 3,
        _ => 0,
    };
    let digits = if power == 0 { text } else { &text[..text.len() - 1] };
    digits.parse::<u64>().ok()?.checked_mul(unit.pow(power))
}
