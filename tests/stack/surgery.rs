//! A journal as somebody changes it who should not touch it.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use journal::Record;
use journal::codec;
use journal::folder::Folder;
use journal::segment::{
    GROUP_HEADER_BYTES, GroupHeader, Header, SECTOR_BYTES, file_name, index_name, round_up,
};
use journal::walk::{Located, Step, Walker};

use super::proof::{folder_of, frame_of, records};

/// Put half of a record behind the end of the newest segment: what a write leaves that was under
/// way when the power failed.
pub fn tear(data_dir: &Path) {
    let folder = Folder::open(folder_of(data_dir)).unwrap();
    let segment = *folder.segments().unwrap().last().unwrap();
    let path = folder_of(data_dir).join(file_name(segment));
    let bytes = std::fs::read(&path).unwrap();
    let first_event_id = Header::decode(&bytes).unwrap().first_event_id;
    let mut walker = Walker::new(segment, None);
    let (mut at, mut next_event) = (work::UnixTime(0), first_event_id);
    let end = loop {
        match walker.step(&bytes[usize::try_from(walker.offset()).unwrap()..], true) {
            Step::Record(located) => {
                at = located.at;
                next_event = located.event_id + located.record.events();
            }
            Step::End(end) => break end,
            other => panic!("{other:?} in {}", path.display()),
        }
    };
    let body = format!("{{\"why\":\"{}\"}}", "a torn record".repeat(20));
    let record = Record::Told { kind: "test".into(), body: body.as_str().into() };
    let mut payload = Vec::new();
    codec::encode(&record, next_event, at, &mut payload);
    let length = u32::try_from(payload.len()).unwrap();
    let number = walker.group().unwrap_or(0) + 1;
    let header = GroupHeader { length, number, first_event_id: next_event, at };
    let mut torn = header.encode().to_vec();
    torn.extend_from_slice(&payload[..payload.len() / 2]);
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let offset = round_up(end.position.offset, SECTOR_BYTES);
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&torn).unwrap();
}

/// Copy the journal to `data_dir` of another.
pub fn copy(from: &Path, to: &Path) {
    let (from, to) = (folder_of(from), folder_of(to));
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Take a record that `is_wanted` out of the journal as if it had never been written: the group
/// that it was in is shorter by it, and all checksums fit. The record; it is near the middle of
/// those that can be taken out.
pub fn cut_out(data_dir: &Path, is_wanted: impl Fn(&Record) -> bool) -> Located {
    let mut wanted = records(data_dir);
    wanted.retain(|located| is_wanted(&located.record));
    let middle = wanted.len() / 2;
    wanted.rotate_left(middle);
    let cut = wanted.into_iter().find(|located| try_cut(data_dir, located));
    cut.expect("a record that can be taken out")
}

/// Take it out, if it is not alone in its group. What is behind the group moves up, and the header
/// of the next segment says so.
fn try_cut(data_dir: &Path, located: &Located) -> bool {
    let segment = located.position.segment;
    let path = folder_of(data_dir).join(file_name(segment));
    let mut bytes = std::fs::read(&path).unwrap();
    let begin = usize::try_from(located.position.offset).unwrap();
    let group = group_before(&bytes, begin);
    let mut header = GroupHeader::decode(&bytes[group..]).unwrap();
    let payload = group + GROUP_HEADER_BYTES;
    let end = payload + usize::try_from(header.length).unwrap();
    let next_group = group + usize::try_from(header.whole_bytes()).unwrap();
    let frame = frame_of(located);
    // The last record of a group need not be filled up.
    let after = (begin + frame.len()).min(end);
    assert_eq!(bytes[begin..after], frame[..after - begin]);
    if (begin, after) == (payload, end) {
        return false;
    }
    if begin == payload {
        header.first_event_id = located.event_id + located.record.events();
    }
    header.length -= u32::try_from(after - begin).unwrap();
    let mut without = header.encode().to_vec();
    without.extend_from_slice(&bytes[payload..begin]);
    without.extend_from_slice(&bytes[after..end]);
    without.resize(usize::try_from(header.whole_bytes()).unwrap(), 0);
    let moved = next_group - group - without.len();
    bytes.splice(group..next_group, without);
    std::fs::write(&path, &bytes).unwrap();
    let _ = std::fs::remove_file(path.with_file_name(index_name(segment)));
    move_end(&path.with_file_name(file_name(segment + 1)), moved as u64);
    true
}

/// Let the segment in this file, if there is one, say that the one before it ends earlier.
fn move_end(path: &Path, by: u64) {
    let Ok(mut bytes) = std::fs::read(path) else { return };
    let mut header = Header::decode(&bytes).unwrap();
    header.previous.offset -= by;
    bytes[..Header::BYTES].copy_from_slice(&header.encode());
    std::fs::write(path, &bytes).unwrap();
}

/// Where the header of the group begins that holds the record at `offset`.
fn group_before(bytes: &[u8], offset: usize) -> usize {
    let sector = usize::try_from(SECTOR_BYTES).unwrap();
    let sectors = (1..=offset / sector).rev().map(|number| number * sector);
    let is_group = |at: &usize| GroupHeader::decode(&bytes[*at..]).is_ok();
    sectors.into_iter().find(is_group).expect("a group around every record")
}
