//! What has the daemon, or disks, do something.

use anyhow::anyhow;
use backend_process::output;
use xen_virtio_backend::control::{Client, DeviceState, DeviceStatusOf};

use super::{
    report::{self, printable},
    select::Selection,
};
use crate::{
    args::{LimitArgs, LogLevelArgs, ResizeArgs, RunDir},
    disks::Disks,
    order::Order,
};

/// Has disks take on the sizes of their images.
///
/// # Errors
/// There are none such, or one can't. The others have.
pub fn resize(args: &ResizeArgs) -> anyhow::Result<()> {
    order(
        &args.daemon,
        &Selection { guest: Some(&args.guest), disk: args.disk.as_deref() },
        Order::Resize,
    )
}

/// Changes the limits of a disk.
///
/// # Errors
/// There is none such, or it can't be changed.
pub fn limit(args: &LimitArgs) -> anyhow::Result<()> {
    let selection = Selection { guest: Some(&args.guest), disk: Some(&args.disk) };
    order(&args.daemon, &selection, Order::Limit(args.change()))
}

/// Changes what is logged.
///
/// # Errors
/// It is no filter, or the daemon does not answer.
pub fn log_level(args: &LogLevelArgs) -> anyhow::Result<()> {
    Client::<Disks>::new(&args.daemon.run_dir).log_filter(&args.filter)?;
    Ok(())
}

/// Has each disk that is meant do something, and prints what comes of it.
fn order(daemon: &RunDir, selection: &Selection<'_>, order: Order) -> anyhow::Result<()> {
    let client = Client::<Disks>::new(&daemon.run_dir);
    let status = client.status()?;
    let mut failed = 0;
    for device in selection.of(&status)? {
        let name = report::name(device);
        match is_served(device).and_then(|()| Ok(client.order(device.id, order)?)) {
            Ok(text) => output::line(format!("{name}: {}", printable(&text)))?,
            Err(error) => {
                failed += 1;
                output::line(format!("{name}: {}", printable(&format!("{error:#}"))))?;
            }
        }
    }
    match failed {
        0 => Ok(()),
        1 => Err(anyhow!("a disk was left as it is")),
        failed => Err(anyhow!("{failed} disks were left as they are")),
    }
}

fn is_served(device: &DeviceStatusOf<Disks>) -> anyhow::Result<()> {
    match &device.state {
        DeviceState::Serving => Ok(()),
        DeviceState::Refused(reason) => Err(anyhow!("it is not served: {reason}")),
        _ => Err(anyhow!("it is being opened or closed")),
    }
}
