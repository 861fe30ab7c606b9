//! An initiator sends any CDB and any parameter list: what is accepted is what initiators are told there is, and keeps its
//! limits. First 16 bytes: the CDB; the rest: the parameter list.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::scsi::{
    Command, Identity, Limits, Lun, Mode, ModeQuery, PageControl, copy, inquiry, mode, parameters, table,
};

const BLOCKS: u64 = 1 << 21;
const IDENTITY: Identity<'_> = Identity {
    serial: "0123456789abcdef",
    naa: [0x30, 1, 2, 3, 4, 5, 6, 7],
    target_name: "iqn.2026-01.example:t",
    port: 1,
    port_group: 1,
    product: "volume",
};

/// The command is listed, and the bits outside its usage data change nothing.
fn check_listed(cdb: &[u8; 16], command: Command) {
    let action = u16::from(cdb[1] & 0x1f);
    let (listed, has_actions) = match table::one_command(1, cdb[0], 0, false) {
        Ok(listed) => (listed, false),
        Err(_) => (table::one_command(2, cdb[0], action, false).expect("it has service actions"), true),
    };
    let usage = &listed[4..];
    assert_eq!(listed[1], 3);
    let mut masked = [0; 16];
    for ((out, byte), mask) in masked.iter_mut().zip(cdb).zip(usage) {
        *out = byte & mask;
    }
    masked[0] = cdb[0];
    if has_actions {
        masked[1] |= cdb[1] & 0x1f;
    }
    assert_eq!(Command::decode(&masked), Ok(command));
}

/// What sense shows after a select can be selected again.
fn check_mode(ten: bool, list: &[u8]) {
    let Ok(selected) = mode::select(ten, list, &Mode::default(), BLOCKS) else { return };
    let query =
        ModeQuery { ten, long_lba: ten, no_blocks: false, control: PageControl::Current, page: 0x3f, subpage: 0xff };
    let shown = mode::sense(&query, &selected, BLOCKS, false).expect("there are pages");
    assert_eq!(mode::select(ten, &shown, &Mode::default(), BLOCKS), Ok(selected));
}

fn check_copy(list: &[u8]) {
    let Ok(copy) = copy::parse(list) else { return };
    assert!(copy.targets.len() <= usize::from(copy::TARGETS_MAX));
    assert!(copy.segments.len() <= usize::from(copy::SEGMENTS_MAX));
    for segment in copy.segments {
        assert!(segment.source < copy.targets.len() && segment.destination < copy.targets.len());
    }
}

fn check_unmap(list: &[u8]) {
    let limits = Limits::default();
    let Ok(spans) = parameters::unmap_list(list, &limits) else { return };
    assert!(spans.len() <= usize::try_from(limits.unmap_descriptors_max).expect("it is small"));
    assert!(spans.iter().map(|span| span.blocks).sum::<u64>() <= u64::from(limits.unmap_blocks_max));
}

fuzz_target!(|data: &[u8]| {
    let Some((cdb, list)) = data.split_first_chunk::<16>() else { return };
    check_mode(false, list);
    check_mode(true, list);
    check_copy(list);
    check_unmap(list);
    if let Some(lun) = list.first_chunk::<8>().and_then(|wire| Lun::decode(*wire)) {
        assert_eq!(Lun::decode(lun.encode()), Some(lun));
    }
    let command = match Command::decode(cdb) {
        Ok(command) => command,
        Err(sense) => {
            assert_eq!(sense.encode(false).len(), 18);
            assert!(sense.encode(true).len() >= 8);
            return;
        }
    };
    check_listed(cdb, command);
    assert!(command.data_out_bytes() == 0 || command.data_in_bytes_max() == 0);
    let _ = command.access();
    match command {
        Command::Inquiry { page: Some(page), .. } => {
            let _ = inquiry::page(page, &IDENTITY, &Limits::default());
        }
        Command::ModeSense { ten, long_lba, no_blocks, control, page, subpage, .. } => {
            let query = ModeQuery { ten, long_lba, no_blocks, control, page, subpage };
            let _ = mode::sense(&query, &Mode::default(), BLOCKS, true);
        }
        Command::ReportOpcodes { timeouts, options, opcode, service_action, .. } => {
            let _ = table::one_command(options, opcode, service_action, timeouts);
        }
        _ => {}
    }
});
