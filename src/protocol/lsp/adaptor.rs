//! Around tower-lsp's service: document sync in wire order, and what its types cannot say.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tower_lsp::jsonrpc::{Error, Request, Response};
use tower_lsp::lsp_types::MessageType;
use tower_lsp::{ExitedError, LspService};
use tower_service::Service;

use super::capabilities::Capabilities;
use super::next_edit;
use super::server::{Handlers, Server};

/// tower-lsp's service, made to keep the protocol. Calls are in wire order, and the transport polls
/// what a call returns once before it makes the next.
pub struct Adaptor {
    inner: LspService<Handlers>,
    server: Arc<Server>,
}

impl Adaptor {
    /// The service for `server`.
    #[must_use]
    pub fn new(server: Arc<Server>) -> Self {
        let handlers = Handlers(Arc::clone(&server));
        let mut service = LspService::build(|_| handlers);
        for method in next_edit::METHODS {
            service = service.custom_method(method, Handlers::inline_edit);
        }
        let (inner, _socket) = service
            .custom_method("textDocument/didShowInlineEdit", Handlers::did_show_edit)
            .custom_method("textDocument/inlineCompletion", Handlers::inline_completion)
            .custom_method("textDocument/didShowCompletion", Handlers::did_show)
            .custom_method(
                "textDocument/didPartiallyAcceptCompletion",
                Handlers::did_partially_accept,
            )
            .custom_method("tandem/status", Handlers::status)
            .finish();
        Self { inner, server }
    }

    /// Applies a document notification, before anything that comes after it is looked at.
    fn sync(&self, kind: &Sync, request: Request) -> BoxFuture<'static, Answer> {
        let (method, id, params) = request.into_parts();
        if let Some(id) = id {
            let mut error = Error::invalid_request();
            error.message = format!("{method} is a notification").into();
            return answer(Response::from_error(id, error));
        }
        if !self.server.initialized() {
            return std::future::ready(Ok(None)).boxed();
        }
        let documents = &self.server.documents;
        let params = params.unwrap_or_default();
        let applied = match kind {
            Sync::Open => documents.open(params).map_err(|error| error.to_string()),
            Sync::Change => documents
                .change(params, self.server.capabilities().encoding)
                .map_err(|error| error.to_string()),
            Sync::Close => documents
                .close(params)
                .map(|uri| self.server.suggestions.forget(&uri))
                .map_err(|error| error.to_string()),
        };
        let Err(why) = applied else {
            return std::future::ready(Ok(None)).boxed();
        };
        tracing::warn!(%method, %why, "a document is out of step");
        let client = self.server.client.clone();
        async move {
            client
                .show(MessageType::WARNING, format!("Tandem: {why}"))
                .await;
            Ok(None)
        }
        .boxed()
    }

    fn initialize(&mut self, request: Request) -> BoxFuture<'static, Answer> {
        if !self.server.initialized() {
            let params = request.params().unwrap_or(&Value::Null);
            self.server.introduce(Capabilities::resolve(params), params);
        }
        let server = Arc::clone(&self.server);
        let future = self.inner.call(request);
        async move {
            let Some(response) = future.await? else {
                return Ok(None);
            };
            let (id, result) = response.into_parts();
            let result = result.map(|mut result| {
                // LSP 3.18; lsp-types 0.94 has no field for it.
                result["capabilities"]["inlineCompletionProvider"] = json!({});
                server.lifecycle.initialized.store(true, Ordering::Release);
                result
            });
            Ok(Some(Response::from_parts(id, result)))
        }
        .boxed()
    }

    fn shutdown(&mut self, request: Request) -> BoxFuture<'static, Answer> {
        let server = Arc::clone(&self.server);
        // tower-lsp refuses `"params": null`, which several clients send.
        let future = self.inner.call(with_params(request, None));
        async move {
            let response = future.await?;
            if response.as_ref().is_some_and(Response::is_ok) {
                server.lifecycle.shut_down.store(true, Ordering::Release);
            }
            Ok(response)
        }
        .boxed()
    }
}

type Answer = Result<Option<Response>, ExitedError>;

enum Sync {
    Open,
    Change,
    Close,
}

impl Service<Request> for Adaptor {
    type Response = Option<Response>;
    type Error = ExitedError;
    type Future = BoxFuture<'static, Answer>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExitedError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match request.method() {
            "textDocument/didOpen" => self.sync(&Sync::Open, request),
            "textDocument/didChange" => self.sync(&Sync::Change, request),
            "textDocument/didClose" => self.sync(&Sync::Close, request),
            "initialize" => self.initialize(request),
            "shutdown" => self.shutdown(request),
            // tower-lsp takes a missing `params` for an error where its handler has an argument.
            "tandem/status" => self.inner.call(with_params(request, Some(Value::Null))),
            "initialized" => self.inner.call(with_params(request, Some(json!({})))),
            _ => self.inner.call(request),
        }
    }
}

fn with_params(request: Request, params: Option<Value>) -> Request {
    let (method, id, _) = request.into_parts();
    let mut request = Request::build(method);
    if let Some(params) = params {
        request = request.params(params);
    }
    if let Some(id) = id {
        request = request.id(id);
    }
    request.finish()
}

fn answer(response: Response) -> BoxFuture<'static, Answer> {
    std::future::ready(Ok(Some(response))).boxed()
}
