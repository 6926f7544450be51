//! The pictures of the documentation, as `contrib/plot` draws them from figures.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::within;

const LIMIT: Duration = Duration::from_secs(60);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn plot(to: &Path, sources: &[&Path]) -> Output {
    let python = std::env::var_os("TABLECAST_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    command
        .arg(root().join("contrib/plot"))
        .arg("--to")
        .arg(to)
        .args(sources);
    command.output().unwrap()
}

/// Draws the picture of a source with this content.
fn draw(files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("sample");
    match files {
        [("", text)] => fs::write(&source, text).unwrap(),
        files => {
            fs::create_dir(&source).unwrap();
            files
                .iter()
                .for_each(|(name, text)| fs::write(source.join(name), text).unwrap());
        }
    }
    let output = plot(folder.path(), &[&source]);
    assert!(output.status.success(), "{output:?}");
    fs::read_to_string(folder.path().join("sample.svg")).unwrap()
}

#[test]
fn the_pictures_show_the_figures_that_are_kept() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let output = plot(folder.path(), &[]);
        assert!(output.status.success(), "{output:?}");
        let names = |folder: PathBuf| {
            let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let kept = root().join("src/docs/plots");
        let drawn = names(folder.path().to_owned());
        assert_eq!(drawn, names(kept.clone()));
        for name in drawn {
            let [drawn, kept] = [folder.path(), &kept].map(|folder| fs::read_to_string(folder.join(&name)).unwrap());
            assert!(drawn == kept, "{name:?}: run contrib/plot");
            // It stands in Markdown, which an empty line would end.
            assert!(!drawn.trim_end().contains("\n\n"));
        }
    });
}

#[test]
fn each_benchmark_is_drawn_with_its_figures() {
    let samples = [
        (
            "throughput, updates/s\n  json     zmq crate alone   2000000   tablecast   1000000   ratio 0.50\n",
            ["zmq crate alone", "json", "2,000,000", "1,000,000", "ratio 0.50"],
        ),
        (
            "latency at 10000 updates/s, microseconds\n  msgpack  zmq crate alone p50   50 p99   100   tablecast p50   60 \
             p99   200   p99 ratio 2.00\n",
            ["msgpack, p99", "60", "100", "200", "ratio 2.00"],
        ),
        (
            "a writer's own rate, updates/s\n  to the network itself    500000   through the service    250000   ratio \
             0.51\n",
            [
                "to the network itself",
                "through the service",
                "500,000",
                "250,000",
                "ratio 0.51",
            ],
        ),
        (
            "one by one: the crate's PUBLISH, and ours\n  PUBLISH, send_event     14000   tablecast     7000   ratio 0.50\n",
            ["PUBLISH, send_event", "ours", "14,000", "7,000", "ratio 0.50"],
        ),
        (
            "lookups of 500000 keys: 12.5ms; a map behind a lock: 25.0ms; speed 2.00 of it\n",
            [
                "lookups of 500000 keys",
                "a map behind a lock",
                "12.5 ms",
                "25.0 ms",
                "speed 2.00",
            ],
        ),
        (
            "rate, median of 5 rounds, updates/s: without metrics 1200000, with 600000, ratio 0.501\n",
            ["without metrics", "with", "1,200,000", "600,000", "ratio 0.501"],
        ),
    ];
    within(LIMIT, move || {
        for (output, labels) in samples {
            let picture = draw(&[("", output)]);
            for label in labels {
                assert!(picture.contains(&format!(">{label}</text>")), "{label}: {picture}");
            }
            // Of the two bars one is twice as long as the other.
            for width in ["290.0", "145.0"] {
                assert!(
                    picture.contains(&format!("width=\"{width}\" height=\"12.0\"")),
                    "{picture}"
                );
            }
        }
    });
}

#[test]
fn what_is_no_benchmark_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("sample.txt");
    fs::write(&source, "nothing here\n").unwrap();
    let output = plot(folder.path(), &[&source]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no figures in sample"));
    fs::write(folder.path().join("trace.csv"), "time_s,agent,staleness_s,lag_s\n").unwrap();
    fs::write(folder.path().join("faults.csv"), "fault\n").unwrap();
    let output = plot(folder.path(), &[folder.path()]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("plot: no samples in"));
}

#[test]
fn a_trace_is_drawn_with_its_faults() {
    const TRACE: &str = "time_s,agent,staleness_s,lag_s,rows,sync_events\n\
                         0.0,agent1,0.0,0.001,9,2\n0.0,agent2,1.0,,9,2\n50.0,agent1,8.0,,9,2\n100.0,agent1,4.0,0.002,9,2\n";
    const FAULTS: &str = "begin_s,end_s,equal_s,fault,sync_events,rows_repaired,rows_compared,rows_differing\n\
                          50.0,60.0,61.5,A host is cut off,4,0,10,0\n70.0,80.0,,A server is lost,4,0,10,3\n";
    within(LIMIT, || {
        let picture = draw(&[("trace.csv", TRACE), ("faults.csv", FAULTS)]);
        for text in [
            "1. A host is cut off: 10.0 s; equal 1.5 s later, 0 of 10 rows differ",
            "2. A server is lost: 10.0 s; never equal, 3 of 10 rows differ",
            "agent2",
            "0.002",
        ] {
            assert!(picture.contains(&format!(">{text}</text>")), "{text}: {picture}");
        }
        // From the bottom to the top, and half of the way down.
        assert!(
            picture.contains("points=\"60.0,206.0 385.0,56.0 710.0,131.0\""),
            "{picture}"
        );
        let marks = picture.matches("height=\"150.0\"").count();
        assert_eq!(marks, 4, "two faults in each of two panels");
    });
}

#[test]
fn a_screen_is_drawn_with_its_colours() {
    let folder = tempfile::tempdir().unwrap();
    let screen = folder.path().join("screen.ansi");
    fs::write(&screen, "\u{1b}[1mname\u{1b}[0m  rate\n\u{1b}[32mone\u{1b}[39m <&\n\n").unwrap();
    let output = plot(folder.path(), &[&screen]);
    assert!(output.status.success(), "{output:?}");
    let drawn = fs::read_to_string(folder.path().join("screen.svg")).unwrap();
    for part in [
        r#"font-weight="bold">name<"#,
        ">  rate<",
        r##"fill="#3d9a50">one<"##,
        "> &lt;&amp;<",
    ] {
        assert!(drawn.contains(part), "{part}: {drawn}");
    }
}
