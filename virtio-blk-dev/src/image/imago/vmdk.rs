use std::io;
use std::path::Path;

use imago::format::gate::ImplicitOpenGate;
use imago::vmdk::Vmdk;
use imago::{FormatAccess, FormatDriverBuilder, StorageOpenOptions};

use super::storage::Layer;

/// The VMDK image whose descriptor is `descriptor`. `extent` gives each file that it names, in its order.
pub(super) fn vmdk(
    descriptor: Layer,
    extent: impl FnMut(&Path) -> io::Result<Layer>,
) -> io::Result<Vmdk<Layer>> {
    let mut image = Vmdk::<Layer>::open_image(descriptor, false)?;
    image.open_implicit_dependencies_gated(Extents(extent))?;
    Ok(image)
}

struct Extents<F>(F);

impl<F: FnMut(&Path) -> io::Result<Layer>> ImplicitOpenGate<Layer> for Extents<F> {
    fn open_format<B: FormatDriverBuilder<Layer>>(
        &mut self,
        _: B,
    ) -> io::Result<FormatAccess<Layer>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<Layer> {
        (self.0)(options.get_filename().ok_or(io::ErrorKind::NotFound)?)
    }
}
