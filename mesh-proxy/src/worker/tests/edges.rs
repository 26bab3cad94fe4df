//! Edges of the data path: rotation under load, outbound policy, repetition, drain, headers, metrics.

use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;

#[test]
fn certificates_rotate_under_load_without_an_error() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let mut streams = Vec::new();
        for _ in 0..8 {
            streams.push(mesh.dial().await);
        }
        for round in 0..6 {
            for stream in &mut streams {
                assert!(get(stream, "/a").await.0.starts_with("HTTP/1.1 200"), "round {round}");
            }
            for (identity, name) in mesh.identities.iter().zip(["client", "server"]) {
                identity.publish_svid(&svid(&mesh.authority, name));
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    });
}

#[test]
fn a_new_certificate_is_what_the_next_connection_shows() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let hash = |body: &str| body.split("Hash=").nth(1).map(|rest| rest[..64].to_owned()).expect("a hash");
        let mut stream = mesh.dial().await;
        let before = hash(&get(&mut stream, "/").await.1);
        assert_eq!(hash(&get(&mut stream, "/").await.1), before);
        mesh.identities[0].publish_svid(&svid(&mesh.authority, "client"));
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_ne!(hash(&get(&mut stream, "/").await.1), before, "the old connection is not used any more");
    });
}

#[test]
fn registry_only_answers_502_and_says_nothing_more() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        let state = mesh.client.load_full();
        let workload = state.workload.as_ref().expect("published");
        let mut config = workload.config.clone();
        config.mesh.outbound_policy = mesh_api::model::OutboundPolicy::RegistryOnly;
        let restricted = WorkloadState::compile(config, WorkloadPolicies::default(), "2".into(), None);
        SERVICE.set(Some(mesh.application));
        mesh.client.publish(ProxyState {
            revision: 0,
            workload: Some(Arc::new(restricted)),
            destinations: HashMap::from([(DestinationKey::Address(mesh.application.ip()), Known::Absent)]),
        });
        let mut stream = mesh.dial().await;
        let (head, body) = get(&mut stream, "/").await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        assert_eq!(body, "");
        let mut stream = mesh.dial().await;
        stream.write_all(b"\x00\x01 not HTTP").await.expect("written");
        assert!(!matches!(stream.read(&mut [0; 8]).await, Ok(length) if length > 0), "TCP is closed");
    });
}

/// An application that serves one request of each connection and takes the next without an answer.
fn once_then_silence(posts: &Rc<Cell<usize>>) -> impl FnOnce(TcpListener) -> Scripted + 'static {
    let posts = Rc::clone(posts);
    move |listener| {
        Box::pin(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ""] {
                    let mut bytes = Vec::new();
                    while !bytes.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                            break;
                        }
                    }
                    posts.set(posts.get() + usize::from(bytes.starts_with(b"POST")));
                    stream.write_all(answer.as_bytes()).await.expect("written");
                }
            }
        })
    }
}

#[test]
fn what_must_not_be_done_twice_is_not_sent_twice() {
    let posts = Rc::new(Cell::new(0));
    let application = once_then_silence(&posts);
    run_test(Protocol::Http, MtlsMode::Strict, application, async move |mesh| {
        let mut stream = mesh.dial().await;
        assert_eq!(get(&mut stream, "/").await.1, "ok");
        let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(post).await.expect("written");
        assert!(response(&mut stream).await.0.starts_with("HTTP/1.1 503 "));
        assert_eq!(posts.get(), 1, "it may have been done");
        assert_eq!(get(&mut stream, "/").await.1, "ok");
        assert_eq!(get(&mut stream, "/").await.1, "ok", "what may be repeated is repeated");
    });
}

#[test]
fn a_silent_connection_does_not_hold_up_the_drain() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        let _silent = [mesh.dial().await, TcpStream::connect(mesh.inbound).await.expect("connected")];
        tokio::time::sleep(Duration::from_millis(50)).await;
        mesh.drain.begin();
        let begun = Instant::now();
        for worker in mesh.workers {
            worker.await.expect("joined").expect("ended well");
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "the deadline is 4 s");
    });
}

#[test]
fn a_proxy_names_itself_and_every_request() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        let mut through = mesh.dial().await;
        let (head, body) = get(&mut through, "/").await;
        assert!(head.to_ascii_lowercase().contains("\r\nserver: envoy\r\n"), "{head}");
        assert!(head.to_ascii_lowercase().contains("\r\nx-envoy-upstream-service-time: "), "{head}");
        let id = |body: &str| {
            let line = body.lines().find_map(|line| line.strip_prefix("x-request-id: "));
            line.map(str::to_owned).expect("an id")
        };
        assert_eq!(id(&body).len(), 36);
        assert!(
            body.contains("x-forwarded-proto: http\r\n") && body.contains("x-envoy-attempt-count: 1\r\n")
        );
        let mut direct = TcpStream::connect(mesh.inbound).await.expect("connected");
        direct.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nx-request-id: mine\r\n\r\n").await.expect("written");
        let (head, body) = response(&mut direct).await;
        assert!(head.to_ascii_lowercase().contains("\r\nserver: istio-envoy\r\n"), "{head}");
        assert_eq!(id(&body), "mine");
    });
}

#[test]
fn tls_of_the_application_passes_where_plaintext_does_and_nowhere_else() {
    async fn echo(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let (mut read, mut write) = stream.split();
                let _either_way = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    }
    /// A complete ClientHello that offers `h2`.
    fn hello() -> Vec<u8> {
        let alpn = [&[0, 16, 0, 5, 0, 3, 2][..], b"h2"].concat();
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        body.extend(u16::try_from(alpn.len()).expect("short").to_be_bytes());
        body.extend(alpn);
        let length = u16::try_from(body.len()).expect("short");
        let mut message = vec![0x16, 3, 1];
        message.extend((length + 4).to_be_bytes());
        message.extend([1, 0]);
        message.extend(length.to_be_bytes());
        message.extend(body);
        message
    }
    for (mode, passes) in [(MtlsMode::Permissive, true), (MtlsMode::Disable, true), (MtlsMode::Strict, false)]
    {
        run_test(Protocol::Auto, mode, echo, async move |mesh| {
            let mut stream = TcpStream::connect(mesh.inbound).await.expect("connected");
            let hello = hello();
            stream.write_all(&hello).await.expect("written");
            let mut echoed = vec![0; hello.len()];
            let read = stream.read_exact(&mut echoed).await;
            assert_eq!(read.is_ok() && echoed == hello, passes, "{mode:?}");
        });
    }
}

#[test]
fn the_mode_of_a_port_overrides_that_of_the_workload() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let state = mesh.server.load_full();
        let workload = state.workload.as_ref().expect("published");
        let port = mesh.application.port();
        let mut policies = workload.policies.clone();
        policies.mtls_ports = BTreeMap::from([(port, MtlsMode::Permissive)]);
        let next = WorkloadState::compile(workload.config.clone(), policies, "2".into(), None);
        mesh.server.publish(ProxyState {
            revision: 0,
            workload: Some(Arc::new(next)),
            destinations: HashMap::new(),
        });
        let mut stream = TcpStream::connect(mesh.inbound).await.expect("connected");
        assert!(get(&mut stream, "/").await.0.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn an_old_client_that_asks_keeps_its_connection_and_204_has_no_length() {
    let answers = &[
        "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ];
    run_test(Protocol::Http, MtlsMode::Strict, scripted(answers), async |mesh| {
        let mut stream = mesh.dial().await;
        stream.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await.expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut head).await.expect("read"), 0, "stays open");
        }
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        assert!(text.contains("connection: keep-alive") && !text.contains("content-length"), "{text}");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("written");
        assert!(all(&mut stream).await.ends_with("ok"));
    });
}

/// The lines of one metric.
fn lines<'a>(text: &'a str, name: &str, reporter: &str) -> Vec<&'a str> {
    let start = format!("{name}{{");
    let label = format!("reporter=\"{reporter}\"");
    text.lines().filter(|line| line.starts_with(&start) && line.contains(&label)).collect()
}

#[test]
fn requests_and_streams_are_counted_with_istios_names_and_labels() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
            mesh.publish_server(Some(allow_get_of(&["/ok"], "client")), 2);
            let mut stream = mesh.dial().await;
            get(&mut stream, "/ok").await;
            get(&mut stream, "/no").await;
        });
        run_test(Protocol::Tcp, MtlsMode::Strict, greeting, async |mesh| {
            let mut stream = mesh.dial().await;
            stream.read_exact(&mut [0; 11]).await.expect("read");
            stream.write_all(b"four").await.expect("written");
            stream.read_exact(&mut [0; 4]).await.expect("read");
            stream.shutdown().await.expect("shut down");
            stream.read_to_end(&mut Vec::new()).await.expect("read");
            tokio::time::sleep(Duration::from_millis(100)).await;
        });
    });
    let text = handle.render();
    for reporter in ["source", "destination"] {
        let requests = lines(&text, "istio_requests_total", reporter);
        let of =
            |code: &str| requests.iter().find(|line| line.contains(&format!("response_code=\"{code}\"")));
        for (code, found) in [("200", of("200")), ("403", of("403"))] {
            let line = found.unwrap_or_else(|| panic!("{reporter} {code}: {text}"));
            assert!(line.ends_with(" 1"), "{line}");
        }
        let line = of("200").expect("looked at above");
        for label in [
            "source_workload=\"client\"",
            "source_workload_namespace=\"web\"",
            "source_principal=\"spiffe://cluster.local/ns/web/sa/client\"",
            "destination_workload=\"server\"",
            "destination_workload_namespace=\"web\"",
            "destination_principal=\"spiffe://cluster.local/ns/web/sa/server\"",
            "destination_service=\"server.web.svc.cluster.local\"",
            "destination_service_name=\"server\"",
            "destination_service_namespace=\"web\"",
            "connection_security_policy=\"mutual_tls\"",
            "request_protocol=\"http\"",
            "response_flags=\"-\"",
        ] {
            let is_hidden = reporter == "destination" && label.starts_with("source_workload=");
            assert!(is_hidden || line.contains(label), "{label} in {line}");
        }
        for name in ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"] {
            assert!(!lines(&text, &format!("{name}_count"), reporter).is_empty(), "{name}");
        }
        let total = |name: &str| -> u64 {
            let lines = lines(&text, name, reporter);
            lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        assert_eq!(total("istio_tcp_connections_opened_total"), 1, "{reporter}");
        assert_eq!(total("istio_tcp_connections_closed_total"), 1, "{reporter}");
        assert_eq!(total("istio_tcp_received_bytes_total"), 4, "{reporter}");
        assert_eq!(total("istio_tcp_sent_bytes_total"), 15, "{reporter}");
    }
}

#[test]
fn bytes_of_a_stream_are_counted_while_it_lives() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        run_test(Protocol::Tcp, MtlsMode::Strict, greeting, async move |mesh| {
            let mut stream = mesh.dial().await;
            let (mut read, mut write) = stream.split();
            let chunk = vec![7; 64 * 1024];
            let (written, ()) = tokio::join!(
                async {
                    for _ in 0..40 {
                        write.write_all(&chunk).await.expect("written");
                    }
                    40 * chunk.len()
                },
                async {
                    let mut echoed = vec![0; 40 * 64 * 1024 + 11];
                    read.read_exact(&mut echoed).await.expect("echoed");
                }
            );
            let text = handle.render();
            for reporter in ["source", "destination"] {
                let lines = lines(&text, "istio_tcp_received_bytes_total", reporter);
                let counted: usize =
                    lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum();
                assert!(counted > written / 2 && counted <= written, "{reporter}: {counted} of {written}");
                assert!(lines.iter().all(|line| line.contains("response_flags=\"-\"")), "{lines:?}");
            }
        });
    });
}
