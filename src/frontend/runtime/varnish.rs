//! Varnish's management interface (`varnishd -T`).
//!
//! Every change is a VCL of its own, named after the digest of the outputs: it is loaded (which compiles it), its source
//! is read back and compared with the outputs, and then Varnish switches to it. So the name of the active VCL in
//! `vcl.list` shows what Varnish runs, however often it or elasticd was restarted. The name of a VCL is never used again,
//! since the main VCL that includes the outputs may have changed in between.
//!
//! Replaced VCLs are discarded late. Varnish frees the backends of a discarded VCL in the thread that also executes
//! commands, and waits 20 ms for each backend that no other VCL has and that has an idle connection (`VCP_Rel` in its
//! `cache_conn_pool.c`; measured: 2.3 s for 100 backends, 21 s for 1,000). No change is possible meanwhile, and after
//! `cli_timeout`, 60 s, the manager kills the child process, with its cache. Idle connections are closed after
//! `backend_idle_timeout`, and from then on discarding costs nothing.

mod cli;
mod source;
mod vcl;

use cli::Cli;
use futures_util::future::BoxFuture;
use source::not_included;
use vcl::{OwnName, Vcl, discardable};

use super::api::{Access, Comparison, Error, Evidence, LiveUpdate, RuntimeApi, Wanted};
use crate::sys::ticks::now_ticks;

pub(super) struct Varnish;

impl RuntimeApi for Varnish {
    fn compare<'a>(
        &self,
        access: &'a Access,
        wanted: &'a Wanted<'a>,
        _last: Option<&'a Evidence>,
    ) -> BoxFuture<'a, Result<Comparison, Error>> {
        Box::pin(compare(access, wanted))
    }

    fn takes_changes(&self) -> bool {
        true
    }

    fn apply<'a>(
        &self,
        access: &'a Access,
        wanted: &'a Wanted<'a>,
        _last: Option<&'a Evidence>,
    ) -> BoxFuture<'a, Result<LiveUpdate, Error>> {
        Box::pin(apply(access, wanted))
    }
}

async fn compare(access: &Access, wanted: &Wanted<'_>) -> Result<Comparison, Error> {
    let mut cli = Cli::connect(access).await?;
    let vcls = cli.vcls().await?;
    match vcls.iter().find(|vcl| vcl.is_active()) {
        Some(active) if active.is_of(wanted) => {
            discard_replaced(&mut cli, &vcls).await;
            Ok(Comparison::Runs(Evidence { identity: Some(active.name.clone()), ..Evidence::default() }))
        }
        Some(active) => Ok(Comparison::Differs(format!("its active VCL is {}", active.name))),
        None => Ok(Comparison::Differs("it has no active VCL".to_owned())),
    }
}

async fn apply(access: &Access, wanted: &Wanted<'_>) -> Result<LiveUpdate, Error> {
    let Some(main) = &access.config else {
        return Err(access.unusable("set `config` to the file that varnishd is started with (`varnishd -f`)"));
    };
    let mut cli = Cli::connect(access).await?;
    let vcls = cli.vcls().await?;
    if vcls.iter().any(|vcl| vcl.is_active() && vcl.is_of(wanted)) {
        return Ok(LiveUpdate::Applied);
    }
    // Failed attempts leave VCLs too.
    discard_replaced(&mut cli, &vcls).await;
    let name = OwnName::new(wanted.digest, now_ticks()).to_string();
    cli.execute(&["vcl.load", &name, &main.to_string_lossy()]).await?;
    let shown = cli.send(&["vcl.show", "-v", &name]).await?;
    if let Some(path) = not_included(&shown, wanted) {
        // It was never used, so it has no connections.
        cli.execute(&["vcl.discard", &name]).await?;
        let (main, path) = (main.display(), path.display());
        return Err(access.unusable(format!(
            "{main} does not include {path} as it is in place: write `include \"{path}\";` after its line `vcl 4.1;`"
        )));
    }
    cli.execute(&["vcl.use", &name]).await?;
    Ok(LiveUpdate::Applied)
}

/// Discards the replaced VCLs that can be discarded. What fails is tried again with the next comparison.
async fn discard_replaced(cli: &mut Cli<'_>, vcls: &[Vcl]) {
    if !vcls.iter().any(Vcl::is_unused) {
        return;
    }
    let Some(idle_timeout) = cli.backend_idle_timeout().await else { return };
    for name in discardable(vcls, now_ticks(), idle_timeout) {
        if let Err(error) = cli.execute(&["vcl.discard", name]).await {
            tracing::debug!(%error, vcl = name, "cannot discard a replaced VCL");
            return;
        }
    }
}
