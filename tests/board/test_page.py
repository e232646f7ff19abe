"""The board's page in a real browser: it shows what Redis holds, moves when Redis changes, and takes every name for text."""

import pytest

import cluster
from board_world import Board, Browser, Contents, view, wait_for

HOSTILE = ["<img src=x onerror=\"window.owned=1\">", "<script>window.owned=1</script>", "\"><svg/onload=window.owned=1>",
           "javascript%3Aalert(1)", "%E2%80%AEevil", "__proto__", "a&amp;b", "{{7*7}}".replace("{", "%7B").replace("}", "%7D")]
ROWS = "document.querySelectorAll('#grid-body .row:not([hidden])').length"


@pytest.fixture(scope="module")
def shop(module_world):
    redis = module_world.redis(aof=True)
    contents = Contents(redis)
    contents.write("all", {"all": view(500, 300, 200, change="-2.5", change_p="0.4", change_verdict=0, csat_mean=4.25, csat_n=40)})
    contents.write("stage", {"after": view(40, 10, 10), "before": view(1, 1, 1), "during": view(5, 0, 45, change=-30, change_p=0,
                                                                                                change_verdict=-1)})
    contents.write("touchpoint", {
        "delivery": view(10, 5, 85, change=-30, change_p=0, change_verdict=-1, target=40, target_state=-1),
        "checkout": view(150, 30, 20, change=8, change_p=0, change_verdict=1, target=10, target_state=1),
        "app%3A upgrade": view(10, 5, 5), "pickup": view(2, 0, 1), "silent": view(),
        **{name: view(7, 7, 7) for name in HOSTILE}})
    contents.write("channel", {"web": view(40, 40, 20), "voice": view(20, 40, 40)})
    contents.health()
    now = cluster.now_ms()
    contents.trend("touchpoint", "delivery", [(now - 250000 + i * 2500, view(100 - i, 0, i)) for i in range(100)])
    contents.trend("touchpoint", "delivery", [(now - 3500000 + i * 30000, view(50, 0, 50)) for i in range(115)], window="1h")
    return redis, contents, Board(module_world, redis)


def opened(browser, shop, query="", rows=5):
    shop[1].health()
    browser.open(shop[2].url + query)
    browser.wait("%s >= %d" % (ROWS, rows), "the rows")


def test_shows_what_redis_holds(browser, shop):
    opened(browser, shop)
    browser.wait("document.querySelector('#whole-nps').textContent === '+30'", "the whole")
    browser.wait("document.querySelector('#status').textContent === 'Live and whole'", "health")
    assert browser.text("#namespace") == "shop"
    facts = browser.text("#whole-facts")
    assert "1,000" in facts and "\u22122.5 no significant change" in facts and "4.25" in facts
    assert browser.text("#whole-split .split-words, .split-words") == "500 promoters300 passives200 detractors"
    assert browser.row("delivery")[1] == "\u221275" and browser.row("delivery")[4:7] == ["100", "\u25bc \u221230.0", "+40 \u2717 missed"]
    assert browser.row("checkout")[1] == "+65" and browser.row("checkout")[4:7] == ["200", "\u25b2 +8.0", "+10 \u2713 met"]
    assert browser.row("app: upgrade")[1] == "+25" and browser.row("app: upgrade")[4] == "20 few"
    # What has no score says why, in words.
    assert browser.row("pickup")[1:3] == ["\u2013", "withheld: 3 of 5 answers"]
    assert browser.row("silent")[1:3] == ["\u2013", "quiet: no answers"]
    stages = browser.run("return [...document.querySelectorAll('#journey li')].map((each) => each.textContent)")
    assert [s[:6] for s in stages] == ["before", "during", "after+"], stages
    assert "withheld: 3 of 5" in stages[0] and "\u221280" in stages[1] and "\u25bc \u221230.0" in stages[1] and "+50" in stages[2]
    # Most answers first.
    assert browser.names()[:2] == ["checkout", "delivery"] and browser.names()[-1] == "silent"
    health = browser.text("#health")
    assert "web-3" in health and "182,736" in health and "0.2 s" in health and "0.7 s ago" in health
    assert "bad_score" in browser.text("#health-more") and "answers/0" in browser.text("#health-more")
    assert browser.console() == []


def test_every_name_is_text(browser, shop):
    opened(browser, shop)
    names = browser.names()
    for name in ("<img src=x onerror=\"window.owned=1\">", "<script>window.owned=1</script>", "\"><svg/onload=window.owned=1>",
                 "javascript:alert(1)", "%E2%80%AEevil", "__proto__", "a&amp;b", "{{7*7}}"):
        assert name in names
        # It is chosen, and so stands in the headings of trend and heat map too, and in the address.
        assert browser.run("const row = [...document.querySelectorAll('#grid-body .row')].find((each) => "
                           "each.querySelector('.name').textContent === arguments[0]); row.click(); return true", name)
        browser.wait("document.querySelector('#trend-title').textContent === %s" % repr(name).replace("\\'", "'"), "the heading")
    opened(browser, shop, "?q=%3Cimg&id=%3Cimg+src%3Dx+onerror%3D%22window.owned%3D1%22%3E", rows=1)
    assert browser.names() == [HOSTILE[0]] and browser.text("#trend-title") == HOSTILE[0]
    assert browser.run("return window.owned === undefined && document.querySelectorAll('img, #grid script, #grid svg').length === 0")
    assert browser.run("return Object.prototype.polluted === undefined && document.scripts.length") == 1
    assert browser.console() == []


def test_moves_when_redis_changes(browser, shop):
    redis, contents, _ = shop
    opened(browser, shop, "?q=pickup", rows=1)
    contents.write("touchpoint", {"pickup": view(20, 0, 0)})
    browser.wait("document.querySelector('#grid-body .row .nps').textContent === '+100'", "the new score")
    contents.write("touchpoint", {"pickup": view(0, 0, 30)})
    browser.wait("document.querySelector('#grid-body .row .nps').textContent === '\u2212100'", "the newer score")
    contents.write("touchpoint", {"pickup two": view(9, 0, 1)})
    browser.wait(ROWS + " === 2", "the new row")
    contents.remove("touchpoint", "pickup two")
    contents.tell(["touchpoint:pickup two:5m", "touchpoint:never:5m"])
    browser.wait(ROWS + " === 1", "the row is gone")
    contents.write("touchpoint", {"pickup": view(2, 0, 1)})
    browser.wait("document.querySelector('#grid-body .row').textContent.includes('withheld')", "no score again")


def test_states_in_words(browser, shop):
    redis, contents, _ = shop
    opened(browser, shop)
    for health, expected in (
            (dict(complete=0, window_complete=0, lag_ms=42000), "Catching up: records of the last 42 s"),
            (dict(complete=0, window_complete=0, instances=0), "Nobody reads"),
            (dict(window_complete=0, covered_since=cluster.now_ms() - 60000), "Warming up"), (dict(), "Live and whole")):
        contents.health(**health)
        browser.wait("document.querySelector('#status').textContent.startsWith(%r)" % expected, expected)
        assert browser.run("return document.querySelector('#state').classList.contains('bad')") == (expected != "Live and whole")
    redis.call("DEL", contents.prefix + "health")
    browser.wait("document.querySelector('#status').textContent.startsWith('Stale: nobody writes')", "stale")
    assert browser.row("delivery")[1] == "\u221275", "the last known numbers stay"
    contents.health()
    browser.wait("document.querySelector('#status').textContent.startsWith('Live')", "live again")


def test_survives_a_restart_of_redis(browser, shop):
    redis, contents, board = shop
    opened(browser, shop, "?q=delivery", rows=1)
    redis.kill()
    browser.wait("document.querySelector('#status').textContent.startsWith('Redis is away')", "Redis is away")
    redis.start()
    contents.health()
    browser.wait("document.querySelector('#status').textContent.startsWith('Live')", "Redis is back")
    contents.write("touchpoint", {"delivery": view(85, 5, 10, target=40, target_state=1)})
    browser.wait("document.querySelector('#grid-body .row .nps').textContent === '+75'", "what changed afterwards")
    contents.write("touchpoint", {"delivery": view(10, 5, 85, change=-30, change_p=0, change_verdict=-1, target=40, target_state=-1)})
    browser.wait("document.querySelector('#grid-body .row .nps').textContent === '\u221275'", "and back")


def test_survives_a_restart_of_the_board(browser, shop, module_world):
    """The page finds its server again, says so meanwhile, and shows what came in between."""
    redis, contents, _ = shop
    port = cluster.free_port()
    board = Board(module_world, redis, board__listen="127.0.0.1:%d" % port)
    contents.health()
    browser.open(board.url + "?q=checkout")
    browser.wait(ROWS + " === 1", "the row")
    board.stop()
    browser.wait("document.querySelector('#status').textContent.startsWith('Connection lost')", "the connection is lost", 60)
    contents.write("touchpoint", {"checkout": view(0, 0, 50)})
    board = Board(module_world, redis, board__listen="127.0.0.1:%d" % port)
    browser.wait("document.querySelector('#grid-body .row .nps').textContent === '\u2212100'", "what changed meanwhile", 60)
    contents.write("touchpoint", {"checkout": view(150, 30, 20, change=8, change_p=0, change_verdict=1, target=10, target_state=1)})
    board.stop()


def test_sort_filter_tabs_and_the_address(browser, shop):
    opened(browser, shop)
    browser.click("button[data-sort=nps]")
    assert browser.names()[0] == "checkout"
    browser.click("button[data-sort=nps]")
    # The lowest first, and what has no score last either way.
    assert browser.names()[0] == "delivery" and set(browser.names()[-2:]) == {"pickup", "silent"}
    assert "sort=nps" in browser.run("return location.search") and "dir=up" in browser.run("return location.search")
    browser.keys("#filter", "DELIV")
    assert browser.names() == ["delivery"]
    browser.run("document.querySelector('#filter').value = ''; document.querySelector('#filter').dispatchEvent(new Event('input'));"
                "const show = document.querySelector('#show'); show.value = 'missed'; show.dispatchEvent(new Event('change'))")
    assert browser.names() == ["delivery"]
    browser.run("const show = document.querySelector('#show'); show.value = 'met'; show.dispatchEvent(new Event('change'))")
    assert browser.names() == ["checkout"]
    browser.run("const show = document.querySelector('#show'); show.value = ''; show.dispatchEvent(new Event('change'))")
    browser.click("#tabs [data-value=channel]")
    browser.wait(ROWS + " === 2", "the channels")
    assert browser.names() == ["voice", "web"], "the order stays: lowest first"
    # A link shows what its sender sees.
    address = browser.run("return location.href")
    browser.open("about:blank")
    browser.open(address)
    browser.wait(ROWS + " === 2", "the channels")
    assert browser.names() == ["voice", "web"]
    assert browser.run("return document.querySelector('#tabs [aria-selected=true]').dataset.value") == "channel"
    browser.click("#windows [data-value='1h']")
    browser.wait("[...document.querySelectorAll('#grid-body .row:not([hidden])')].every((row) => row.textContent.includes('no data yet'))"
                 " && %s === 2" % ROWS, "rows without a view say so")


def test_trend_and_heat_map(browser, shop):
    opened(browser, shop, "?id=delivery&sort=name&dir=up")
    browser.wait("document.querySelectorAll('#trend .band').length === 1", "the band")
    # From +100 down to -98 over a hundred points.
    assert "lowest \u221298, highest +100, now \u221298" in browser.text("#trend-text")
    browser.wait("document.querySelectorAll('#heat g.series').length >= 5", "the heat map")
    cells = browser.run("return [...document.querySelectorAll('#heat g.series')].filter((each) => each.querySelector('text').textContent"
                        " === 'delivery').map((each) => [...each.querySelectorAll('rect')].map((cell) => cell.getAttribute('class')))[0]")
    assert 40 <= len(cells) <= 60 and cells[0] == "h10" and cells[-1] == "h0", cells
    browser.click("#zooms [data-value='1h']")
    browser.wait("document.querySelector('#trend-text').textContent.includes('lowest 0, highest 0')", "the trend of an hour")
    assert "zoom=1h" in browser.run("return location.search") and "window" not in browser.run("return location.search")
    browser.click("#zooms [data-value='90d']")
    browser.wait("document.querySelector('#trend-text').textContent.startsWith('No point yet')", "a trend without points says so")


def test_keyboard(browser, shop):
    opened(browser, shop, "?sort=name&dir=up&id=checkout")
    names = browser.names()
    browser.run("document.querySelector('#grid').focus()")
    at = names.index("checkout")
    for key, expected in (("\ue015", names[at + 1]), ("\ue013", names[at]), ("\ue010", names[-1]), ("\ue011", names[0])):
        browser.keys("#grid", key)
        browser.wait("document.querySelector('#grid-body [aria-selected=true] .name')?.textContent === %s" %
                     ("'" + expected.replace("\\", "\\\\").replace("'", "\\'") + "'"), "the row " + expected)
    assert browser.run("return document.querySelector('#grid').getAttribute('aria-activedescendant')") == "chosen"
    browser.keys("#windows [aria-checked=true]", "\ue014")
    browser.wait("document.querySelector('#windows [aria-checked=true]').dataset.value === '1h'", "the next window")
    # Everything that can be clicked can be reached.
    assert browser.run("return [...document.querySelectorAll('button, a, input, select, summary')].filter((each) => each.checkVisibility()"
                       " && each.tabIndex < 0 && !each.closest('.choice')).length") == 0


def test_nothing_leaves_the_host(browser, shop):
    opened(browser, shop)
    browser.wait("performance.getEntriesByType('resource').length >= 5", "the page has asked")
    origins = browser.run("return [...new Set(performance.getEntriesByType('resource').map((each) => new URL(each.name).origin))]")
    assert origins == [shop[2].url.rstrip("/")]
    # The policy is in force: what the page does not bring itself does not run.
    assert browser.run("const script = document.createElement('script'); script.textContent = 'window.ran = 1'; document.head.append(script);"
                       "return window.ran === undefined")
    wait_for(lambda: any("Content Security Policy" in each for each in browser.console()), 20, "the browser says why")


def test_token_form(browser, shop, module_world):
    board = Board(module_world, shop[0], token="let me in")
    shop[1].health()
    browser.open(board.url)
    browser.wait("document.querySelector('#token-form').checkVisibility()", "the question")
    assert browser.run("return " + ROWS) == 0
    browser.keys("#token", "wrong\ue007")
    browser.wait("document.querySelector('#token-form').checkVisibility()", "the question again")
    browser.run("document.querySelector('#token').value = ''")
    browser.keys("#token", "let me in\ue007")
    browser.wait(ROWS + " >= 5", "the rows")
    assert "let" not in browser.run("return location.href")
    browser.run("sessionStorage.clear()")
    browser.open("about:blank")
    browser.open(board.url + "#token=let%20me%20in")
    browser.wait(ROWS + " >= 5", "the rows")
    assert "#" not in browser.run("return location.href")
    browser.run("sessionStorage.clear()")
    board.stop()


def test_wallboard_and_themes(browser, shop):
    opened(browser, shop, "?wallboard=1", rows=2)
    assert browser.run("return parseFloat(getComputedStyle(document.querySelector('#grid-body .nps')).fontSize)") >= 32
    assert browser.run("return parseFloat(getComputedStyle(document.querySelector('#whole-nps')).fontSize)") >= 100
    assert not browser.run("return document.querySelector('#filter').checkVisibility()")
    # It turns its pages by itself, and says which.
    browser.wait("/^[0-9]+ to [0-9]+ of 1[0-9]$/.test(document.querySelector('#count').textContent)", "the page's number")
    assert browser.run("const grid = document.querySelector('#grid').getBoundingClientRect(); return [...document.querySelectorAll("
                       "'#grid-body .row:not([hidden])')].every((row) => row.getBoundingClientRect().bottom <= grid.bottom)"), "whole rows only"
    grounds = {}
    for theme in ("light", "dark"):
        opened(browser, shop, "?theme=" + theme)
        grounds[theme] = browser.run("return getComputedStyle(document.documentElement).backgroundColor")
    assert grounds["light"] != grounds["dark"]


def test_contrast(browser, shop):
    """Every text stands out from its ground by 4.5 to 1 (WCAG AA), in both themes, when all is well and when not."""
    script = """
        const number = (text) => text.match(/[0-9.]+/g).map(Number);
        const light = (rgb) => rgb.slice(0, 3).map((c) => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
        const ground = (node) => { for (; node; node = node.parentElement) { const rgb = number(getComputedStyle(node).backgroundColor);
            if (rgb.length === 3 || rgb[3] > 0) return rgb; } return [255, 255, 255]; };
        const found = {};
        for (const node of document.querySelectorAll('body *')) {
            if (![...node.childNodes].some((each) => each.nodeType === 3 && each.textContent.trim()) || !node.checkVisibility()) continue;
            const svg = node.ownerSVGElement, style = getComputedStyle(node);
            const a = light(number(svg ? style.fill : style.color)), b = light(ground(svg ? svg.parentElement : node));
            const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05), name = node.tagName + '.' + (node.className.baseVal ?? node.className);
            found[name] = Math.min(found[name] ?? 99, Math.round(ratio * 100) / 100);
        }
        return found;"""
    for theme in ("light", "dark"):
        for health in (dict(), dict(complete=0, window_complete=0)):
            opened(browser, shop, "?id=delivery&theme=" + theme)
            shop[1].health(**health)
            browser.wait("document.querySelector('#state').classList.contains('bad') === %s" % ("true" if health else "false"), "the state")
            found = browser.run(script)
            assert len(found) > 20, found
            assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}, theme


def test_phone(browser, shop):
    try:
        browser.size(500, 900)
        opened(browser, shop, rows=3)
        assert browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth"), "nothing to scroll sideways"
        assert browser.run("return document.querySelector('#grid-body .row .nps').checkVisibility()")
    finally:
        browser.size(1440, 1000)


def test_ten_thousand(module_world):
    """The table holds as many rows as are seen, whatever there is; sorting, filtering and scrolling answer at once. Says how fast
    it was; asserts no time, for the machine may be busy."""
    redis = module_world.redis(name="large")
    contents = Contents(redis)
    count = 10000
    contents.write("all", {"all": view(5000, 3000, 2000)})
    contents.write("touchpoint", {"touchpoint %05d" % i: view(i % 50, 10, (i * 7) % 50) for i in range(count)})
    for i in (3, 17):
        contents.trend("touchpoint", "touchpoint %05d" % i, [(cluster.now_ms() // 1000 * 1000 - 60000, view(10, 5, 5))])
    contents.health()
    board = Board(module_world, redis)
    browser = Browser(module_world)
    try:
        browser.open(board.url)
        browser.wait("document.querySelector('#count').textContent === '10,000'", "all names", 60)
        assert browser.run("return document.querySelectorAll('#grid-body .row').length") < 60
        took = browser.run("""
            const grid = document.querySelector('#grid'), click = (key) => document.querySelector(`button[data-sort=${key}]`).click();
            const time = (what) => { const begun = performance.now(); what(); document.body.offsetHeight; return performance.now() - begun; };
            return { paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime, sort: time(() => click('nps')),
                     name: time(() => click('name')), scroll: time(() => { grid.scrollTop = 200000; }) };""")
        browser.wait("[...document.querySelectorAll('#grid-body .row:not([hidden])')].some((row) => row.ariaRowIndex > 4990)", "the middle")
        frames = browser.do("POST", "/execute/async", {"args": [], "script": """
            const done = arguments[arguments.length - 1], grid = document.querySelector('#grid'), times = [];
            let last = performance.now(), left = 120;
            const step = (now) => { times.push(now - last); last = now; grid.scrollTop += 937; --left ? requestAnimationFrame(step) : done(times); };
            requestAnimationFrame(step);"""})
        frames.sort()
        print("10,000 rows: first paint %.0f ms, sort %.0f ms, frames while scrolling: median %.1f ms, 95 %% %.1f ms" % (
            took["paint"] or -1, took["sort"], frames[60], frames[114]))
        browser.run("document.querySelector('#grid').scrollTop = 0")
        browser.keys("#filter", "09999")
        browser.wait(ROWS + " === 1", "one row")
        contents.write("touchpoint", {"touchpoint 09999": view(80, 0, 0)})
        browser.wait("document.querySelector('#grid-body .row .nps').textContent === '+100'", "its new score")
        # The heat map turns its pages through the rows of the table, and a link shows the same one.
        browser.open(board.url + "?sort=name&dir=up")
        heat = "[...document.querySelectorAll('#heat g.series text:first-child')].map((each) => each.textContent).join()"
        expect = lambda first: ",".join("touchpoint %05d" % i for i in range(first, first + 15))  # noqa: E731
        browser.wait("%s === '%s'" % (heat, expect(0)), "the first rows", 60)
        assert browser.text("#heat-page") == "Rows 1 to 15 of 10,000"
        assert browser.run("return document.querySelector('#heat-before').disabled")
        browser.click("#heat-after")
        browser.wait("%s === '%s'" % (heat, expect(15)), "the next rows")
        assert browser.text("#heat-page") == "Rows 16 to 30 of 10,000" and "heat=2" in browser.run("return location.search")
        browser.open(board.url + "?sort=name&dir=up&heat=2")
        browser.wait("%s === '%s'" % (heat, expect(15)), "the rows of the link", 60)
        browser.click("#heat-before")
        browser.wait("%s === '%s'" % (heat, expect(0)), "the first rows again")
        assert browser.console() == []
    finally:
        browser.close()
        board.stop()
