use super::*;

<<<<<<< HEAD
fn record(user_agent: Option<&str>) -> Record<'static> {
    Record {
        time_ms: 0,
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        user_agent: user_agent.map(|text| text.as_bytes().to_vec().into()),
        referrer: None,
        method: b"GET".as_slice().into(),
        path: b"/".as_slice().into(),
        host: None,
        status: 200,
        own_answer: false,
    }
}

#[test]
fn crawlers_are_known_by_what_they_say() {
    for yes in
        ["Googlebot/2.1 (+http://www.google.com/bot.html)", "curl/8.14.1", "Python-urllib/3.13", "Feedly/1.0"]
    {
        assert!(declares_itself(&record(Some(yes))), "{yes}");
    }
    for no in ["Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "-", ""] {
        assert!(!declares_itself(&record(Some(no))), "{no}");
    }
    assert!(!declares_itself(&record(None)));
}

=======
>>>>>>> export
#[test]
fn a_truncated_model_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.cbm");
    std::fs::write(&path, &MODEL[..MODEL.len() / 2]).unwrap();
    let error = format!("{:#}", demo_models(Some(&path), &BotArgs::default()).unwrap_err());
    assert!(error.contains("cut.cbm"), "{error}");
}
