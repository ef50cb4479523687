use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, openat, statat};
use rustix::process::geteuid;

/// Whoever a data directory belongs to.
#[derive(Clone, Copy)]
struct Owner {
    user: Uid,
    group: Gid,
}

/// Gives what root has made in a data directory to the owner of the directory: the service, which runs as that user, could
/// not open it otherwise. Nothing for anybody else to do.
pub(super) fn give_to_owner(data: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let directory = File::open(data)?;
    let of = directory.metadata()?;
    let owner = Owner { user: Uid::from_raw(of.uid()), group: Gid::from_raw(of.gid()) };
    if owner.user.is_root() { Ok(()) } else { give(directory.into(), owner) }
}

/// By handles, and never through a link: the owner may put something else in place of what is being looked at.
fn give(directory: OwnedFd, owner: Owner) -> io::Result<()> {
    let mut entries = Dir::read_from(&directory)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let found = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            give(openat(&directory, name, flags, Mode::empty())?, owner)?;
        }
        if Uid::from_raw(found.st_uid).is_root() {
            chownat(&directory, name, Some(owner.user), Some(owner.group), AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}
