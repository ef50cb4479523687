//! What a disk still has after a loss of power: all that was synced, and of the rest what it pleases.
//!
//! - Of a file's pages each may be as it was after any number of the writes to it that were not synced. A page is 4 KiB
//!   or, so that pages are torn, 512 bytes. A changed length may have arrived or not.
//! - Of a directory's changes (names that came, went, or were renamed) that were not synced the first few are there.
//! - A file whose name did not arrive is gone, whatever of it was synced.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::random::Random;

/// The files under a directory as they are on the disk, and what is not on the disk yet.
pub(super) struct Disk {
    root: PathBuf,
    /// The first is the root.
    nodes: Vec<Node>,
    /// Where the file with an inode is in `nodes`.
    inodes: HashMap<u64, usize>,
}

enum Node {
    File { synced: Vec<u8>, pending: Vec<Write> },
    Directory { synced: Names, now: Names, pending: Vec<Change> },
}

type Names = BTreeMap<OsString, usize>;

enum Write {
    Bytes { at: usize, bytes: Vec<u8> },
    Length(usize),
}

enum Change {
    Is(OsString, usize),
    Gone(OsString),
    Renamed(OsString, OsString),
}

/// How much of what was not synced survives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mercy {
    page: usize,
    /// Of 100 pages and directories.
    whole: u64,
    /// Of the same.
    nothing: u64,
}

impl Mercy {
    pub(super) fn any(random: &mut Random) -> Self {
        let page = [512, 4_096][random.index(2)];
        let (whole, nothing) = [(0, 100), (0, 0), (30, 30), (90, 5)][random.index(4)];
        Self { page, whole, nothing }
    }

    /// How many of `count` changes arrived.
    fn of(self, count: usize, random: &mut Random) -> usize {
        match random.in_range(0..100) {
            drawn if drawn < self.whole => count,
            drawn if drawn < self.whole + self.nothing => 0,
            _ => random.index(count + 1),
        }
    }
}

impl Disk {
    /// A disk on which everything under `root` was synced.
    pub(super) fn of(root: &Path) -> io::Result<Self> {
        let mut disk = Self { root: root.canonicalize()?, nodes: Vec::new(), inodes: HashMap::new() };
        disk.scan(&root.canonicalize()?)?;
        Ok(disk)
    }

    fn scan(&mut self, path: &Path) -> io::Result<usize> {
        let node = self.nodes.len();
        self.nodes.push(directory());
        let mut names = Names::new();
        for entry in fs::read_dir(path)? {
            let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
            let child = if path.is_dir() {
                self.scan(&path)?
            } else {
                self.nodes.push(Node::File { synced: fs::read(&path)?, pending: Vec::new() });
                self.inodes.insert(fs::metadata(&path)?.ino(), self.nodes.len() - 1);
                self.nodes.len() - 1
            };
            names.insert(name, child);
        }
        self.nodes[node] = Node::Directory { synced: names.clone(), now: names, pending: Vec::new() };
        Ok(node)
    }

    /// Takes in what a server did, up to the kill that may have torn the last note apart.
    pub(super) fn replay(&mut self, mut journal: &[u8]) {
        while let Some((note, rest)) = Note::read(journal) {
            self.take(&note);
            journal = rest;
        }
    }

    fn take(&mut self, note: &Note<'_>) {
        match note.what {
            b'W' => self.write(note.inode, Write::Bytes { at: note.at, bytes: note.first.to_vec() }),
            b'L' => self.write(note.inode, Write::Length(note.at)),
            b'S' => {
                let Node::File { synced, pending } = self.file(note.inode) else { panic!("a file") };
                pending.drain(..).for_each(|write| write.apply(synced, |_| true));
            }
            b'D' => {
                let node = self.find(note.first);
                let Node::Directory { synced, now, pending } = &mut self.nodes[node] else { panic!("a directory") };
                (*synced, *pending) = (now.clone(), Vec::new());
            }
            b'C' => {
                self.nodes.push(Node::File { synced: Vec::new(), pending: Vec::new() });
                self.inodes.insert(note.inode, self.nodes.len() - 1);
                self.name(note.first, Change::Is);
            }
            b'M' => {
                self.nodes.push(directory());
                self.name(note.first, Change::Is);
            }
            b'K' => {
                let node = self.find(note.first);
                self.name(note.second, |name, _| Change::Is(name, node));
            }
            b'U' => self.name(note.first, |name, _| Change::Gone(name)),
            b'R' => {
                let (from, to) = (path(note.first), path(note.second));
                assert_eq!(from.parent(), to.parent(), "a rename within one directory");
                let to = to.file_name().unwrap().to_owned();
                self.name(note.first, |name, _| Change::Renamed(name, to));
            }
            what => panic!("a note of an unknown kind: {what}"),
        }
    }

    fn file(&mut self, inode: u64) -> &mut Node {
        let node = self.inodes[&inode];
        &mut self.nodes[node]
    }

    fn write(&mut self, inode: u64, write: Write) {
        let Node::File { pending, .. } = self.file(inode) else { panic!("a file") };
        pending.push(write);
    }

    /// A change of a name; it is told the node that was made last.
    fn name(&mut self, of: &[u8], change: impl FnOnce(OsString, usize) -> Change) {
        let (of, last) = (path(of), self.nodes.len() - 1);
        let parent = self.find(of.parent().unwrap().as_os_str().as_bytes());
        let Node::Directory { now, pending, .. } = &mut self.nodes[parent] else { panic!("a directory") };
        let change = change(of.file_name().unwrap().to_owned(), last);
        change.apply(now);
        pending.push(change);
    }

    fn find(&self, of: &[u8]) -> usize {
        path(of).strip_prefix(&self.root).unwrap().iter().fold(0, |node, name| {
            let Node::Directory { now, .. } = &self.nodes[node] else { panic!("a directory") };
            now[name]
        })
    }

    /// The power is lost: writes to an empty `target` what the disk has then.
    pub(super) fn lose_power(&self, target: &Path, mercy: Mercy, random: &mut Random) -> io::Result<()> {
        self.survive(0, target, mercy, random)
    }

    /// Writes what is on the disk for sure.
    pub(super) fn write_to(&self, target: &Path) -> io::Result<()> {
        self.lose_power(target, Mercy { page: 512, whole: 0, nothing: 100 }, &mut Random::new(0))
    }

    fn survive(&self, node: usize, target: &Path, mercy: Mercy, random: &mut Random) -> io::Result<()> {
        match &self.nodes[node] {
            Node::File { synced, pending } => fs::write(target, content(synced, pending, mercy, random)),
            Node::Directory { synced, pending, .. } => {
                let mut names = synced.clone();
                let arrived = mercy.of(pending.len(), random);
                pending[..arrived].iter().for_each(|change| change.apply(&mut names));
                fs::create_dir_all(target)?;
                names.into_iter().try_for_each(|(name, node)| self.survive(node, &target.join(name), mercy, random))
            }
        }
    }
}

/// What a file has after a loss of power.
fn content(synced: &[u8], pending: &[Write], mercy: Mercy, random: &mut Random) -> Vec<u8> {
    let mut content = synced.to_vec();
    let mut writes_of_page: BTreeMap<usize, usize> = BTreeMap::new();
    for write in pending {
        for page in write.pages(mercy.page) {
            *writes_of_page.entry(page).or_default() += 1;
        }
    }
    for left in writes_of_page.values_mut() {
        *left = mercy.of(*left, random);
    }
    for write in pending {
        if let Write::Length(_) = write {
            let arrived = mercy.of(1, random) == 1;
            write.apply(&mut content, |_| arrived);
            continue;
        }
        let arrives: Vec<_> = write
            .pages(mercy.page)
            .filter(|page| {
                writes_of_page.get_mut(page).is_some_and(|left| left.checked_sub(1).map(|n| *left = n).is_some())
            })
            .collect();
        write.apply(&mut content, |at| arrives.binary_search(&(at / mercy.page)).is_ok());
    }
    content
}

impl Write {
    fn pages(&self, size: usize) -> std::ops::Range<usize> {
        match self {
            Self::Bytes { bytes, .. } if bytes.is_empty() => 0..0,
            Self::Bytes { at, bytes } => at / size..(at + bytes.len()).div_ceil(size),
            Self::Length(_) => 0..0,
        }
    }

    /// What of it arrived is asked for the beginning of each 512 bytes.
    fn apply(&self, content: &mut Vec<u8>, mut arrived: impl FnMut(usize) -> bool) {
        match self {
            Self::Length(length) => {
                if arrived(*length) {
                    content.resize(*length, 0);
                }
            }
            Self::Bytes { at, bytes } => {
                let (mut at, mut bytes) = (*at, &bytes[..]);
                while !bytes.is_empty() {
                    let (piece, rest) = bytes.split_at(bytes.len().min(512 - at % 512));
                    if arrived(at) {
                        content.resize(content.len().max(at + piece.len()), 0);
                        content[at..at + piece.len()].copy_from_slice(piece);
                    }
                    (at, bytes) = (at + piece.len(), rest);
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Is(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Gone(name) => drop(names.remove(name)),
            Self::Renamed(from, to) => {
                let node = names.remove(from).expect("what is renamed is there");
                names.insert(to.clone(), node);
            }
        }
    }
}

/// One note of `power_loss.c`.
struct Note<'a> {
    what: u8,
    inode: u64,
    at: usize,
    first: &'a [u8],
    second: &'a [u8],
}

impl<'a> Note<'a> {
    /// The first note and what follows; `None` if there is no whole one.
    fn read(journal: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (what, rest) = journal.split_first()?;
        let (inode, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (second, rest) = rest.split_first_chunk()?;
        let (first, rest) = rest.split_at_checked(u32::from_le_bytes(*first) as usize)?;
        let (second, rest) = rest.split_at_checked(u32::from_le_bytes(*second) as usize)?;
        let at = usize::try_from(u64::from_le_bytes(*at)).ok()?;
        Some((Self { what: *what, inode: u64::from_le_bytes(*inode), at, first, second }, rest))
    }
}

fn directory() -> Node {
    Node::Directory { synced: Names::new(), now: Names::new(), pending: Vec::new() }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Mercy = Mercy { page: 512, whole: 0, nothing: 100 };
    const ANYTHING: Mercy = Mercy { page: 512, whole: 0, nothing: 0 };

    fn note(what: u8, inode: u64, at: u64, first: &[u8], second: &[u8]) -> Vec<u8> {
        let mut note = vec![what];
        note.extend(inode.to_le_bytes());
        note.extend(at.to_le_bytes());
        note.extend(u32::try_from(first.len()).unwrap().to_le_bytes());
        note.extend(u32::try_from(second.len()).unwrap().to_le_bytes());
        note.extend([first, second].concat());
        note
    }

    /// What is left of these notes in an empty directory: names and contents.
    fn left(notes: &[Vec<u8>], mercy: Mercy, random: &mut Random) -> BTreeMap<String, Vec<u8>> {
        let target = tempfile::tempdir().unwrap();
        let mut disk = Disk { root: "/d".into(), nodes: vec![directory()], inodes: HashMap::new() };
        disk.replay(&notes.concat());
        disk.lose_power(target.path(), mercy, random).unwrap();
        let files = fs::read_dir(target.path()).unwrap().map(|entry| entry.unwrap());
        files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
    }

    #[test]
    fn what_was_synced_survives_and_no_more_need_to() {
        let mut random = Random::new(1);
        let mut notes = vec![note(b'C', 7, 0, b"/d/a", b""), note(b'W', 7, 0, b"old", b"")];
        assert_eq!(left(&notes, NOTHING, &mut random), BTreeMap::new());
        notes.push(note(b'D', 0, 0, b"/d", b""));
        assert_eq!(left(&notes, NOTHING, &mut random)["a"], b"", "the name, not the bytes");
        notes.push(note(b'S', 7, 0, b"", b""));
        notes.push(note(b'W', 7, 1, b"new", b""));
        notes.push(note(b'R', 0, 0, b"/d/a", b"/d/b"));
        assert_eq!(left(&notes, NOTHING, &mut random)["a"], b"old");
        notes.push(note(b'D', 0, 0, b"/d", b""));
        notes.push(note(b'S', 7, 0, b"", b"")[..20].to_vec());
        assert_eq!(left(&notes, NOTHING, &mut random)["b"], b"old", "a torn note was no sync");
    }

    #[test]
    fn each_page_is_as_it_was_at_some_time() {
        let mut random = Random::new(2);
        let mut notes = vec![note(b'C', 7, 0, b"/d/a", b""), note(b'D', 0, 0, b"/d", b"")];
        notes.extend((1..=3).map(|n| note(b'W', 7, 100, &[n; 1_500], b"")));
        let mut mixed = 0;
        for _ in 0..100 {
            let content = left(&notes, ANYTHING, &mut random).remove("a").unwrap();
            let pages: Vec<_> = content.chunks(512).map(|page| page[page.len() - 1]).collect();
            for (index, page) in content.chunks(512).enumerate() {
                assert!(page.iter().skip(if index == 0 { 100 } else { 0 }).all(|byte| *byte == pages[index]));
            }
            mixed += usize::from(pages.windows(2).any(|pair| pair[0] != pair[1]));
        }
        assert!(mixed > 50, "{mixed} of 100 are torn");
    }
}
