use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imago::format::gate::ImplicitOpenGate;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::vmdk::Vmdk;
use imago::{FormatAccess, FormatDriverBuilder, StorageOpenOptions};

use super::super::ImageFormat;
use super::super::locked_file::open_locked;
use super::check::check;
use super::header::Header;
use super::host::HostFile;
use super::journal::Journal;
use super::storage::Layer;
use crate::image::OpenError;

/// Images that may build on one another.
const LIMIT: usize = 64;

/// An open image, and what keeps its tables consistent, if it is written.
pub(super) struct Chain {
    pub(super) access: FormatAccess<Layer>,
    pub(super) journal: Option<Arc<Journal>>,
}

/// Opens an image and what it builds on.
pub(super) fn open(path: &Path, format: ImageFormat, read_only: bool) -> Result<Chain, OpenError> {
    match format {
        ImageFormat::Raw => {
            let advice = "open it as a `RawImage`";
            Err(OpenError::FormatMissing { path: path.to_owned(), format, advice })
        }
        ImageFormat::Vmdk if !read_only => {
            Err(OpenError::ReadOnlyFormat { path: path.to_owned(), format })
        }
        ImageFormat::Qcow2 if !read_only => {
            let (image, journal) = open_qcow2(path, false, 1)?;
            Ok(Chain { access: FormatAccess::new(image), journal })
        }
        _ => Ok(Chain { access: open_layer(path, format, 1)?, journal: None }),
    }
}

/// Opens an image that is only read, the `nth` of a chain, and what it builds on.
fn open_layer(
    path: &Path,
    format: ImageFormat,
    nth: usize,
) -> Result<FormatAccess<Layer>, OpenError> {
    if nth > LIMIT {
        return Err(OpenError::Chain { path: path.to_owned(), limit: LIMIT });
    }
    match format {
        ImageFormat::Raw => {
            let (file, path) = open_file(path, true)?;
            let layer = Layer::plain(file, path.clone());
            Raw::open_image(layer, false)
                .map(FormatAccess::new)
                .map_err(|source| unusable(&path, format, source))
        }
        ImageFormat::Qcow2 => {
            open_qcow2(path, true, nth).map(|(image, _)| FormatAccess::new(image))
        }
        ImageFormat::Vmdk => open_vmdk(path).map(FormatAccess::new),
    }
}

type Writable = Option<Arc<Journal>>;

/// Opens a qcow2 image layer by layer: left to itself, imago guesses the format of a backing file
/// whose header field is missing, from what a guest may have written there.
fn open_qcow2(
    path: &Path,
    read_only: bool,
    nth: usize,
) -> Result<(Qcow2<Layer>, Writable), OpenError> {
    let failed = |source| unusable(path, ImageFormat::Qcow2, source);
    let layer = |source| OpenError::Layer { path: path.to_owned(), source: Box::new(source) };

    let (file, absolute) = open_file(path, read_only)?;
    let header = Header::read(&*file).map_err(failed)?;
    let mut backing_format = None;
    // A file that is no qcow2 image at all is left to imago.
    if let Some(header) = &header {
        check(&file, header, read_only).map_err(failed)?;
        backing_format = header.backing_format(&*file).map_err(failed)?;
    }
    let journal = (!read_only).then(|| Arc::new(Journal::new(Arc::clone(&file))));
    let tables = match &journal {
        Some(journal) => Layer::tables(Arc::clone(&file), absolute.clone(), Arc::clone(journal)),
        None => Layer::plain(Arc::clone(&file), absolute.clone()),
    };
    let mut image = Qcow2::<Layer>::open_image(tables, !read_only).map_err(failed)?;

    let data = match (image.requires_external_data_file(), image.implicit_external_data_file()) {
        (false, _) => {
            journal.as_ref().map(|journal| Layer::data(file, absolute, Arc::clone(journal)))
        }
        (true, Some(name)) => {
            let (file, path) = open_file(&beside(path, name), read_only).map_err(layer)?;
            if let Some(journal) = &journal {
                journal.set_data_file(Arc::clone(&file));
            }
            Some(Layer::plain(file, path))
        }
        (true, None) => {
            return Err(failed(io::Error::other("it doesn't name its external data file")));
        }
    };
    image.set_data_file(data);

    let backing = match (image.implicit_backing_file(), backing_format) {
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
            Some(open_layer(&beside(path, name), format, nth).map_err(layer)?)
        }
    };
    image.set_backing(backing);
    Ok((image, journal))
}

fn open_vmdk(path: &Path) -> Result<Vmdk<Layer>, OpenError> {
    let failed = |source| unusable(path, ImageFormat::Vmdk, source);
    let (file, absolute) = open_file(path, true)?;
    let mut image =
        Vmdk::<Layer>::open_image(Layer::plain(file, absolute), false).map_err(failed)?;
    image.open_implicit_dependencies_gated(Extents).map_err(failed)?;
    Ok(image)
}

/// Opens the extents of a VMDK image.
struct Extents;

impl ImplicitOpenGate<Layer> for Extents {
    fn open_format<B: FormatDriverBuilder<Layer>>(
        &mut self,
        _: B,
    ) -> io::Result<FormatAccess<Layer>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<Layer> {
        let path = options.get_filename().ok_or(io::ErrorKind::NotFound)?;
        let (file, path) = open_file(path, true).map_err(io::Error::other)?;
        Ok(Layer::plain(file, path))
    }
}

/// Opens and locks a file. Its path is absolute then.
fn open_file(path: &Path, read_only: bool) -> Result<(Arc<HostFile>, PathBuf), OpenError> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (file, _) = open_locked(&path, read_only, false)?;
    Ok((Arc::new(HostFile::new(file)), path))
}

/// The file that the image at `path` calls `name`.
fn beside(path: &Path, name: &str) -> PathBuf {
    path.parent().map_or_else(|| name.into(), |directory| directory.join(name))
}

fn unusable(path: &Path, format: ImageFormat, source: io::Error) -> OpenError {
    OpenError::Format { path: path.to_owned(), format, source }
}
