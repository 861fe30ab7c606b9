//! A progress bar on a terminal; nothing anywhere else.

use crate::copy::Progress;
use crate::output::Output;
use control::Size;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Characters of the bar.
const BAR_WIDTH: u64 = 30;

/// How often it is drawn.
const DRAW_PERIOD: Duration = Duration::from_millis(200);

/// Shows how far a copy is, on stderr, where that is a terminal and a person reads.
#[derive(Debug)]
pub(crate) struct ProgressBar {
    is_shown: bool,
    began: Instant,
    drawn: Option<Instant>,
}

impl ProgressBar {
    pub(crate) fn new(output: Output) -> Self {
        Self { is_shown: !output.is_json && io::stderr().is_terminal(), began: Instant::now(), drawn: None }
    }

    /// Draws it, when it is time.
    pub(crate) fn show(&mut self, progress: Progress) {
        let is_due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= DRAW_PERIOD);
        if self.is_shown && (is_due || progress.position == progress.end) {
            self.drawn = Some(Instant::now());
            let line = drawn(progress, self.began.elapsed());
            // Who cannot see it does not need it.
            let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
        }
    }

    /// Leaves the line, so that what is printed next begins one.
    pub(crate) fn finish(&mut self) {
        if self.drawn.take().is_some() {
            let _ = writeln!(io::stderr().lock());
        }
    }
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        self.finish();
    }
}

fn drawn(progress: Progress, elapsed: Duration) -> String {
    let Progress { position, end, written_bytes } = progress;
    let share = |of: u64| u64::try_from(u128::from(position) * u128::from(of) / u128::from(end.max(1))).unwrap_or(of);
    let filled = if end == 0 { BAR_WIDTH } else { share(BAR_WIDTH) };
    let bar: String = (0..BAR_WIDTH).map(|at| if at < filled { '#' } else { '.' }).collect();
    let percent = if end == 0 { 100 } else { share(100) };
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let mib_a_second = (u128::from(written_bytes) * 1000 / u128::from(ms)) >> 20;
    let written = Size::from_bytes(written_bytes).rounded();
    format!("[{bar}] {percent:3} %  {written} written, {mib_a_second} MiB/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_tells_share_amount_and_speed() {
        let progress = Progress { position: 3 << 30, end: 4 << 30, written_bytes: 1 << 30 };
        let line = drawn(progress, Duration::from_secs(4));
        assert!(line.ends_with(" 75 %  1G written, 256 MiB/s"), "{line}");
        assert_eq!(line.matches('#').count(), 22);
        assert!(drawn(Progress::default(), Duration::ZERO).contains("100 %"));
    }
}
