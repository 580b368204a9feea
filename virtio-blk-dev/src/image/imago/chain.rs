use std::io;
use std::path::{Path, PathBuf};

use imago::file::File;
use imago::format::gate::ImplicitOpenGate;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::vmdk::Vmdk;
use imago::{FormatAccess, FormatDriverBuilder, StorageOpenOptions};

use super::super::ImageFormat;
use super::super::options::open_locked;
use super::header;
use crate::error::OpenError;

/// Images that may build on one another.
const LIMIT: usize = 64;

/// Opens an image, the `nth` of a chain, and what it builds on.
pub(super) fn open(
    path: &Path,
    format: ImageFormat,
    read_only: bool,
    nth: usize,
) -> Result<FormatAccess<File>, OpenError> {
    if nth > LIMIT {
        return Err(OpenError::Chain { path: path.to_owned(), limit: LIMIT });
    }
    match format {
        ImageFormat::Raw if nth == 1 => {
            let advice = "open it as a `RawImage`";
            Err(OpenError::FormatMissing { path: path.to_owned(), format, advice })
        }
        ImageFormat::Raw => Raw::open_image(open_file(path, read_only)?, !read_only)
            .map(FormatAccess::new)
            .map_err(|source| unusable(path, format, source)),
        ImageFormat::Qcow2 => open_qcow2(path, read_only, nth).map(FormatAccess::new),
        ImageFormat::Vmdk if read_only => open_vmdk(path).map(FormatAccess::new),
        ImageFormat::Vmdk => Err(OpenError::ReadOnlyFormat { path: path.to_owned(), format }),
    }
}

/// Opens a qcow2 image layer by layer: left to itself, imago guesses the format of a backing file
/// whose header field is missing, from what a guest may have written there.
fn open_qcow2(path: &Path, read_only: bool, nth: usize) -> Result<Qcow2<File>, OpenError> {
    let failed = |source| unusable(path, ImageFormat::Qcow2, source);
    let layer = |source| OpenError::Layer { path: path.to_owned(), source: Box::new(source) };

    let check = |file: &_| header::check(file, read_only).map_err(failed);
    let file = open_file_with(path, read_only, check)?;
    let mut image = Qcow2::<File>::open_image(file, !read_only).map_err(failed)?;

    let data = match image.implicit_external_data_file() {
        _ if !image.requires_external_data_file() => None,
        Some(name) => Some(open_file(&beside(path, name), read_only).map_err(layer)?),
        None => return Err(failed(io::Error::other("it doesn't name its external data file"))),
    };
    image.set_data_file(data);

    let backing = match (image.implicit_backing_file(), image.implicit_backing_format()) {
        (None, _) => None,
        (Some(name), None) => {
            let (path, backing) = (path.to_owned(), name.clone());
            return Err(OpenError::BackingFormat { path, backing });
        }
        (Some(name), Some(format)) => {
            let format = match format.as_str() {
                // As old versions of QEMU have it.
                "file" | "host_device" => ImageFormat::Raw,
                name => name.parse().map_err(|error| failed(io::Error::other(error)))?,
            };
            let nth = nth.saturating_add(1);
            Some(open(&beside(path, name), format, true, nth).map_err(layer)?)
        }
    };
    image.set_backing(backing);
    Ok(image)
}

fn open_vmdk(path: &Path) -> Result<Vmdk<File>, OpenError> {
    let failed = |source| unusable(path, ImageFormat::Vmdk, source);
    let file = open_file(path, true)?;
    let mut image = Vmdk::<File>::open_image(file, false).map_err(failed)?;
    image.open_implicit_dependencies_gated(Extents).map_err(failed)?;
    Ok(image)
}

/// Opens the extents of a VMDK image.
struct Extents;

impl ImplicitOpenGate<File> for Extents {
    fn open_format<B: FormatDriverBuilder<File>>(
        &mut self,
        _: B,
    ) -> io::Result<FormatAccess<File>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<File> {
        let path = options.get_filename().ok_or(io::ErrorKind::NotFound)?;
        open_file(path, true).map_err(io::Error::other)
    }
}

fn open_file(path: &Path, read_only: bool) -> Result<File, OpenError> {
    open_file_with(path, read_only, |_| Ok(()))
}

/// Opens and locks a file that passes `check`.
fn open_file_with(
    path: &Path,
    read_only: bool,
    check: impl FnOnce(&std::fs::File) -> Result<(), OpenError>,
) -> Result<File, OpenError> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (file, _) = open_locked(&path, read_only, false)?;
    check(&file)?;
    let options = StorageOpenOptions::new().filename(&path).write(!read_only);
    File::from_open_file(file, options).map_err(|source| OpenError::Size { path, source })
}

/// The file that the image at `path` calls `name`.
fn beside(path: &Path, name: &str) -> PathBuf {
    path.parent().map_or_else(|| name.into(), |directory| directory.join(name))
}

fn unusable(path: &Path, format: ImageFormat, source: io::Error) -> OpenError {
    OpenError::Format { path: path.to_owned(), format, source }
}
