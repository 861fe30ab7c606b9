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

/// A line on stderr that is drawn again and again, where that is a terminal and a person reads.
#[derive(Debug)]
struct Line {
    is_shown: bool,
    drawn: Option<Instant>,
}

/// Shows how far a copy is.
#[derive(Debug)]
pub(crate) struct ProgressBar {
    line: Line,
    began: Instant,
}

/// Shows how many of some steps are done.
#[derive(Debug)]
pub(crate) struct StepBar {
    line: Line,
}

impl Line {
    fn new(output: Output) -> Self {
        Self { is_shown: !output.is_json && io::stderr().is_terminal(), drawn: None }
    }

    /// Draws it, when it is time.
    fn draw(&mut self, is_last: bool, text: impl FnOnce() -> String) {
        let is_due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= DRAW_PERIOD);
        if self.is_shown && (is_due || is_last) {
            self.drawn = Some(Instant::now());
            // Who cannot see it does not need it.
            let _ = write!(io::stderr().lock(), "\r{}\x1b[K", text());
        }
    }

    /// Leaves the line, so that what is printed next begins one.
    fn finish(&mut self) {
        if self.drawn.take().is_some() {
            let _ = writeln!(io::stderr().lock());
        }
    }
}

impl ProgressBar {
    pub(crate) fn new(output: Output) -> Self {
        Self { line: Line::new(output), began: Instant::now() }
    }

    /// Draws it, when it is time.
    pub(crate) fn show(&mut self, progress: Progress) {
        self.line.draw(progress.position == progress.end, || drawn(progress, self.began.elapsed()));
    }

    /// Leaves the line, so that what is printed next begins one.
    pub(crate) fn finish(&mut self) {
        self.line.finish();
    }
}

impl StepBar {
    pub(crate) fn new(output: Output) -> Self {
        Self { line: Line::new(output) }
    }

    /// Draws it, when it is time.
    pub(crate) fn show(&mut self, done: u64, total: u64, what: &str) {
        self.line.draw(done == total, || {
            let (bar, percent) = bar(done, total);
            format!("[{bar}] {percent:3} %  {done} of {total} {what}")
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The bar, and the percentage.
fn bar(done: u64, total: u64) -> (String, u64) {
    let share = |of: u64| u64::try_from(u128::from(done) * u128::from(of) / u128::from(total.max(1))).unwrap_or(of);
    let (filled, percent) = if total == 0 { (BAR_WIDTH, 100) } else { (share(BAR_WIDTH), share(100)) };
    ((0..BAR_WIDTH).map(|at| if at < filled { '#' } else { '.' }).collect(), percent)
}

fn drawn(progress: Progress, elapsed: Duration) -> String {
    let Progress { position, end, written_bytes } = progress;
    let (bar, percent) = bar(position, end);
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
