//! Standard output, for what is shown once.

use std::fs::{self, File};
use std::io::{self, Write as _, stdout};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use gatecast::auth::PlainToken;

/// Shows an admin token to whoever reads standard output.
///
/// # Errors
/// If nobody does, as far as that can be known.
pub(crate) fn admin_token(token: &PlainToken) -> io::Result<()> {
    // Not `stdout` itself, which takes a handle that cannot be written to for one that can.
    let mut out = File::from(stdout().as_fd().try_clone_to_owned()?);
    if is_null(&out)? {
        return Err(io::Error::other("standard output is closed, or /dev/null"));
    }
    writeln!(out, "Admin token (shown once, only its hash is kept): {}", token.expose())
}

/// Whether it is /dev/null, which a process is also given that was started without a standard output.
fn is_null(out: &File) -> io::Result<bool> {
    let (out, null) = (out.metadata()?, fs::metadata("/dev/null")?);
    Ok(out.file_type().is_char_device() && out.rdev() == null.rdev())
}
