//! A page against a plain array of its blocks.

use super::*;
use proptest::prelude::*;

type Model = Vec<Option<(Location, u32)>>;

fn location(segment: u64, block: u16) -> Location {
    Location { segment: SegmentId(segment), block }
}

fn checks_of(first: u32, count: u32) -> Vec<u8> {
    (first..first + count).flat_map(|n| (n ^ 0xa5a5_0000).to_le_bytes()).collect()
}

fn content(page: &Page) -> (Model, Vec<bool>) {
    let mut model = vec![None; PAGE_BLOCKS as usize];
    let mut zeros = vec![false; PAGE_BLOCKS as usize];
    let mut at = 0;
    page.visit(0, PAGE_BLOCKS, |first, len, found| {
        assert_eq!(first, at, "runs follow each other");
        at += len;
        for by in 0..len {
            let index = (first + by) as usize;
            match found {
                Found::Hole => {}
                Found::Zero => zeros[index] = true,
                Found::Data { location, checks } => {
                    let check = checks[by as usize * 4..by as usize * 4 + 4].try_into().unwrap();
                    model[index] = Some((location.plus(by), u32::from_le_bytes(check)));
                }
            }
        }
    });
    assert_eq!(at, PAGE_BLOCKS);
    (model, zeros)
}

#[derive(Debug, Clone)]
struct Step {
    first: u32,
    count: u32,
    /// `None` punches a hole.
    at: Option<Location>,
}

fn steps(count_max: u32, segments: std::ops::Range<u64>) -> impl Strategy<Value = Vec<Step>> {
    let step = (0..PAGE_BLOCKS, 1..=count_max, proptest::option::weighted(0.85, (segments, 1_u16..4000)));
    let step = step.prop_map(|(first, count, at)| Step {
        first,
        count: count.min(PAGE_BLOCKS - first),
        at: at.map(|(segment, block)| location(segment, block)),
    });
    proptest::collection::vec(step, 1..200)
}

fn apply(page: &mut Page, model: &mut Model, zeros: &mut [bool], step: &Step, salt: u32) {
    let checks = checks_of(step.first + salt, step.count);
    let change = step.at.map_or(Change::Hole, |location| Change::Data { location, checks: &checks });
    page.change(step.first, step.count, change);
    for by in 0..step.count {
        let index = (step.first + by) as usize;
        let check = u32::from_le_bytes(checks[by as usize * 4..by as usize * 4 + 4].try_into().unwrap());
        model[index] = step.at.map(|location| (location.plus(by), check));
        zeros[index] = page.is_partial() && step.at.is_none();
    }
}

fn check_against_model(steps: &[Step], is_partial: bool) -> Page {
    let mut page = Page::empty(is_partial);
    let mut model = vec![None; PAGE_BLOCKS as usize];
    let mut zeros = vec![false; PAGE_BLOCKS as usize];
    for (salt, step) in steps.iter().enumerate() {
        apply(&mut page, &mut model, &mut zeros, step, u32::try_from(salt).unwrap());
    }
    assert_eq!(content(&page), (model, zeros));
    assert_eq!(Page::decode(&page.encode()), Ok(page.clone()));
    page
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_an_array_under_random_changes(steps in steps(64, 100..110), is_partial: bool) {
        check_against_model(&steps, is_partial);
    }

    #[test]
    fn equals_an_array_when_segments_are_far_apart(steps in steps(4, 1..(1 << 40) - 1), is_partial: bool) {
        check_against_model(&steps, is_partial);
    }

    #[test]
    fn a_partial_page_over_a_stored_one_equals_both_in_order(
        below in steps(64, 5..90), above in steps(64, 100..1 << 26)
    ) {
        let stored = check_against_model(&below, false);
        let merged = check_against_model(&above, true).over(&stored);
        let mut all = below;
        all.extend(above);
        let (expected, _) = content(&check_against_model(&all, false));
        let (found, zeros) = content(&merged);
        prop_assert!(!zeros.contains(&true));
        let places = |model: &Model| model.iter().map(|e| e.map(|(location, _)| location)).collect::<Vec<_>>();
        prop_assert_eq!(places(&found), places(&expected));
    }

    #[test]
    fn random_bytes_are_refused_or_make_a_page_that_can_be_walked(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(page) = Page::decode(&bytes) {
            content(&page);
        }
    }
}

#[test]
fn a_lone_block_takes_ten_bytes_and_a_sequential_one_little_more_than_four() {
    let mut lone = Page::empty(false);
    for n in (0..1000).step_by(2) {
        lone.change(n, 1, Change::Data { location: location(9, 5), checks: &checks_of(n, 1) });
    }
    assert!(lone.heap_bytes() <= 500 * 10 * 65 / 64 + 10, "{}", lone.heap_bytes());
    let mut sequential = Page::empty(false);
    sequential.change(0, PAGE_BLOCKS, Change::Data { location: location(9, 5), checks: &checks_of(0, PAGE_BLOCKS) });
    assert!(sequential.heap_bytes() * 10 <= PAGE_BLOCKS as usize * 43, "{}", sequential.heap_bytes());
}

#[test]
fn no_page_takes_more_than_eight_bytes_a_block_when_full() {
    let mut page = Page::empty(false);
    for n in 0..PAGE_BLOCKS {
        let scattered = n * 997 % PAGE_BLOCKS;
        let at = location(1000 + u64::from(n), 7);
        page.change(scattered, 1, Change::Data { location: at, checks: &checks_of(scattered, 1) });
    }
    assert_eq!(page.heap_bytes(), 8 * PAGE_BLOCKS as usize);
    assert_eq!(page.mapped_blocks(), u64::from(PAGE_BLOCKS));
}
