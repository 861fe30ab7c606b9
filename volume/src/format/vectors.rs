//! Reads the golden vectors of `volume/vectors/`: what each released version wrote, kept for ever. Hexadecimal digits, lines
//! of `#` that say what it is, and zeros up to the end of the block, whose last four bytes stand after `...`.

use units::BLOCK_LEN;

/// The block that a vector stands for.
pub(super) fn block(text: &str) -> Vec<u8> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let (tail, body): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("..."));
    let mut bytes: Vec<u8> = body.iter().flat_map(|line| digits(line)).collect();
    let tail: Vec<u8> = tail.iter().flat_map(|line| digits(line.trim_start_matches('.'))).collect();
    bytes.resize(BLOCK_LEN - tail.len(), 0);
    bytes.extend(tail);
    bytes
}

fn digits(line: &str) -> Vec<u8> {
    let digits: Vec<u8> = line.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
