use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imago::FormatAccess;
use imago::qcow2::Qcow2;
use imago::raw::Raw;

use super::super::ImageFormat;
use super::chain_files::{ChainFiles, LayerFiles, NamedFile, beside, unusable};
use super::check::check;
use super::header::Header;
use super::host::HostFile;
use super::journal::Journal;
use super::storage::Layer;
use super::vmdk::vmdk;
use crate::image::OpenError;

/// An open image, and what keeps its tables consistent, if it is written.
pub(super) struct Chain {
    pub(super) access: FormatAccess<Layer>,
    pub(super) journal: Option<Arc<Journal>>,
}

/// Makes an image and what it builds on. Nothing is opened: a file that the image names must be one of `files`.
pub(super) fn join(files: ChainFiles) -> Result<Chain, OpenError> {
    let ChainFiles { read_only, image, backing } = files;
    let mut backing = backing.into_iter();
    if image.format == ImageFormat::Qcow2 && !read_only {
        let (image, journal) = qcow2(image, false, &mut backing)?;
        return Ok(Chain { access: FormatAccess::new(image), journal });
    }
    Ok(Chain { access: layer(image, &mut backing)?, journal: None })
}

type Backing = std::vec::IntoIter<LayerFiles>;

/// Makes an image that is only read, and what it builds on, which are the next ones of `backing`.
fn layer(files: LayerFiles, backing: &mut Backing) -> Result<FormatAccess<Layer>, OpenError> {
    match files.format {
        ImageFormat::Raw => {
            let path = files.file.path.clone();
            Raw::open_image(files.file.into_layer(), false)
                .map(FormatAccess::new)
                .map_err(|source| unusable(&path, ImageFormat::Raw, source))
        }
        ImageFormat::Qcow2 => {
            qcow2(files, true, backing).map(|(image, _)| FormatAccess::new(image))
        }
        ImageFormat::Vmdk => {
            let path = files.file.path.clone();
            let mut extents = files.data.into_iter();
            let extent = |path: &Path| {
                opened(extents.next(), Some(path.to_owned())).map(NamedFile::into_layer)
            };
            vmdk(files.file.into_layer(), extent)
                .map(FormatAccess::new)
                .map_err(|source| unusable(&path, ImageFormat::Vmdk, source))
        }
    }
}

type Writable = Option<Arc<Journal>>;

/// Makes a qcow2 image layer by layer: left to itself, imago would open files, and guess the format of a
/// backing file whose header field is missing.
fn qcow2(
    files: LayerFiles,
    read_only: bool,
    backing: &mut Backing,
) -> Result<(Qcow2<Layer>, Writable), OpenError> {
    let LayerFiles { file: named, data, .. } = files;
    let path = named.path.clone();
    let failed = |source| unusable(&path, ImageFormat::Qcow2, source);
    let beside = |name: &String| beside(&path, name);
    let file = Arc::new(HostFile::new(named.file));
    // A file that is no qcow2 image at all is left to imago.
    if let Some(header) = Header::read(&*file).map_err(failed)? {
        check(&file, &header, read_only).map_err(failed)?;
    }
    let journal = (!read_only).then(|| Arc::new(Journal::new(Arc::clone(&file))));
    let tables = match &journal {
        Some(journal) => Layer::tables(Arc::clone(&file), path.clone(), Arc::clone(journal)),
        None => Layer::plain(Arc::clone(&file), path.clone()),
    };
    let mut image = Qcow2::<Layer>::open_image(tables, !read_only).map_err(failed)?;

    let data = if image.requires_external_data_file() {
        let name = image.implicit_external_data_file().map(beside);
        let NamedFile { path, file } = opened(data.into_iter().next(), name).map_err(failed)?;
        let file = Arc::new(HostFile::new(file));
        if let Some(journal) = &journal {
            journal.set_data_file(Arc::clone(&file));
        }
        Some(Layer::plain(file, path))
    } else {
        journal.as_ref().map(|journal| Layer::data(file, path.clone(), Arc::clone(journal)))
    };
    image.set_data_file(data);

    let below = match image.implicit_backing_file().map(beside) {
        None => None,
        Some(name) => {
            let LayerFiles { format, file, data } =
                backing.next().ok_or_else(|| failed(not_opened()))?;
            let file = opened(Some(file), Some(name)).map_err(failed)?;
            let below = layer(LayerFiles { format, file, data }, backing);
            Some(below.map_err(|source| OpenError::Layer {
                path: path.clone(),
                source: Box::new(source),
            })?)
        }
    };
    image.set_backing(below);
    Ok((image, journal))
}

/// The `next` of the open files, if it is the one that the image names.
fn opened(next: Option<NamedFile>, path: Option<PathBuf>) -> io::Result<NamedFile> {
    let is_named = |file: &NamedFile| path.as_ref().is_some_and(|path| *path == file.path);
    next.filter(is_named).ok_or_else(not_opened)
}

fn not_opened() -> io::Error {
    io::Error::other("it names another file than when its files were opened")
}
