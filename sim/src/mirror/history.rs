//! What clients asked and were answered, and whether there is one order of it that explains every answer.
//!
//! Every write has a value of its own, so it is known which write each read saw. A write and its reads are a cluster; its zone
//! lies between the first answer and the last question in it. A block's history is linearizable if no read was answered
//! before its write was asked for, no two forward zones overlap, and no backward zone lies within a forward one (Gibbons and
//! Korach 1997).

use std::collections::{BTreeMap, BTreeSet};

/// When an answer comes that never came.
const NEVER: u64 = u64::MAX;

/// A question of a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    /// The block.
    pub(crate) block: u8,
    /// What was written, or was read.
    pub(crate) value: u64,
    /// Whether it is a write.
    pub(crate) is_write: bool,
    /// When it was asked for the first time; its retries are the same operation.
    pub(crate) asked: u64,
    /// When it was answered, if it was.
    pub(crate) answered: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Cluster {
    written: u64,
    first_answer: u64,
    last_question: u64,
}

/// Everything that clients asked since the beginning, or since what they knew was lost with an excuse.
#[derive(Debug, Default)]
pub(crate) struct History {
    operations: Vec<Operation>,
    /// Values of before the beginning: what is left of them is in no order with the others.
    carried: BTreeSet<u64>,
}

impl History {
    /// Adds a question; tells where its answer belongs.
    pub(crate) fn ask(&mut self, operation: Operation) -> usize {
        self.operations.push(operation);
        self.operations.len() - 1
    }

    /// An operation.
    pub(crate) fn operation(&mut self, index: usize) -> &mut Operation {
        &mut self.operations[index]
    }

    /// Begins anew, with what may be left of everything before. Questions that are still waited for, at `waited`, go on, and these are
    /// their places from now on.
    pub(crate) fn begin_anew(&mut self, mut waited: Vec<&mut usize>) {
        waited.sort_unstable();
        let goes_on: Vec<Operation> = waited.iter().map(|place| self.operations[**place]).collect();
        self.carried.extend(self.operations.iter().filter(|operation| operation.is_write).map(|write| write.value));
        self.carried.insert(0);
        self.operations = goes_on;
        waited.into_iter().enumerate().for_each(|(index, place)| *place = index);
    }

    /// Power is lost: what reads have shown of writes that are not answered may be gone.
    pub(crate) fn forget_unsure(&mut self) {
        let is_open = |operation: &&Operation| operation.is_write && operation.answered.is_none();
        let open: BTreeSet<u64> = self.operations.iter().filter(is_open).map(|write| write.value).collect();
        let is_unsure = |operation: &Operation| !operation.is_write && open.contains(&operation.value);
        // Whoever waits for an answer knows it by its place.
        for operation in self.operations.iter_mut().filter(|operation| is_unsure(operation)) {
            operation.answered = None;
        }
    }

    /// Says what no order explains.
    #[must_use]
    pub(crate) fn fault(&self) -> Option<String> {
        let blocks: BTreeSet<u8> = self.operations.iter().map(|operation| operation.block).collect();
        blocks.into_iter().find_map(|block| self.fault_of(block))
    }

    fn fault_of(&self, block: u8) -> Option<String> {
        let here = || self.operations.iter().filter(|operation| operation.block == block);
        let mut clusters: BTreeMap<u64, Cluster> = BTreeMap::new();
        for write in here().filter(|operation| operation.is_write) {
            let first_answer = write.answered.unwrap_or(NEVER);
            clusters.insert(write.value, Cluster { written: write.asked, first_answer, last_question: write.asked });
        }
        for read in here().filter(|operation| !operation.is_write && operation.answered.is_some()) {
            let answered = read.answered.unwrap_or(NEVER);
            let is_old = read.value == 0 || self.carried.contains(&read.value);
            // A value of before the beginning was written before everything, and may have become visible at any time since.
            let first_answer = if self.carried.contains(&read.value) { answered } else { 0 };
            let old = Cluster { written: 0, first_answer, last_question: 0 };
            if !clusters.contains_key(&read.value) && !is_old {
                return Some(format!("P2: block {block} shows {:#x}, which nobody wrote there", read.value));
            }
            let cluster = clusters.entry(read.value).or_insert(old);
            if answered < cluster.written {
                return Some(format!("P2: block {block} showed {:#x} before it was written", read.value));
            }
            cluster.first_answer = cluster.first_answer.min(answered);
            cluster.last_question = cluster.last_question.max(read.asked);
        }
        zones_fault(block, &clusters)
    }
}

fn zones_fault(block: u8, clusters: &BTreeMap<u64, Cluster>) -> Option<String> {
    let is_forward = |cluster: &Cluster| cluster.first_answer < cluster.last_question;
    let mut forward: Vec<(u64, u64, u64)> = clusters
        .iter()
        .filter(|(_, cluster)| is_forward(cluster))
        .map(|(value, cluster)| (cluster.first_answer, cluster.last_question, *value))
        .collect();
    forward.sort_unstable();
    for pair in forward.windows(2) {
        let ((_, end, first), (start, _, second)) = (pair[0], pair[1]);
        if start < end {
            return Some(format!(
                "P2: block {block}: {first:#x} and {second:#x} were each current while the other was"
            ));
        }
    }
    for (value, cluster) in clusters.iter().filter(|(_, cluster)| !is_forward(cluster) && cluster.first_answer != NEVER)
    {
        let at = forward.partition_point(|(start, ..)| *start < cluster.last_question);
        let around = forward[..at].last().filter(|(_, end, _)| cluster.first_answer < *end);
        if let Some((_, _, other)) = around {
            return Some(format!("P2: block {block}: {value:#x} came and went while {other:#x} was current"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(operations: &[(bool, u64, u64, u64)]) -> History {
        let mut history = History::default();
        for (is_write, value, asked, answered) in operations.iter().copied() {
            let answered = (answered > 0).then_some(answered);
            history.ask(Operation { block: 1, value, is_write, asked, answered });
        }
        history
    }

    /// P2. What can be explained is, what cannot is told.
    #[test]
    fn histories_are_judged() {
        let fine = [(true, 1, 1, 3), (true, 2, 2, 9), (false, 1, 4, 5), (false, 2, 6, 7)];
        assert_eq!(history(&fine).fault(), None);
        let back = [(true, 1, 1, 2), (true, 2, 3, 4), (false, 1, 5, 6)];
        assert!(history(&back).fault().is_some(), "an old value");
        let vanished = [(true, 1, 1, 2), (true, 2, 3, 0), (false, 2, 5, 6), (false, 1, 7, 8)];
        assert!(history(&vanished).fault().is_some(), "a value that was seen and vanished");
        let open = [(true, 1, 1, 2), (true, 2, 3, 0), (false, 1, 5, 6), (false, 2, 7, 8)];
        assert_eq!(history(&open).fault(), None, "an open write may come late");
        assert!(history(&[(false, 7, 1, 2)]).fault().is_some(), "a value from nowhere");
        assert!(history(&[(true, 1, 1, 2), (false, 0, 3, 4)]).fault().is_some(), "nothing, after a write");
    }
}
