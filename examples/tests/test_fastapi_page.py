"""The tasks' page in headless Chromium, used as people use it."""

import datetime as dt

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from service import rows, running

HOSTILE = "<img src=x onerror='document.title = `taken over`'>"


class Page:
    """What a person sees of it, and does with it."""

    def __init__(self, browser):
        self.browser = browser

    def wait(self, condition):
        return WebDriverWait(self.browser, 20, poll_frequency=0.05).until(lambda _: condition())

    def find(self, selector, within=None):
        return (within or self.browser).find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector):
        """The texts of all elements, taken at one moment."""
        script = "return Array.from(document.querySelectorAll(arguments[0]), (e) => e.innerText)"
        return self.browser.execute_script(script, selector)

    def shows(self, selector, *texts):
        self.wait(lambda: self.texts(selector) == list(texts))

    def focused(self):
        return self.browser.switch_to.active_element

    def type(self, *keys):
        self.focused().send_keys(*keys)

    def severe(self):
        """What the browser's console has had of errors since it was last asked."""
        return [one for one in self.browser.get_log("browser") if one["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def service(dsn):
    with running("fastapi_tasks", dsn) as service:
        yield service


@pytest.fixture
def open_page(browser, side):
    def open_page(service):
        page = Page(browser)
        browser.get(service.url)
        page.shows("#state", "Live")
        page.shows("#empty", "No projects yet. Add the first one above.")
        page.severe()
        return page

    rows(side, "TRUNCATE project CASCADE")
    yield open_page
    browser.get("about:blank")  # nobody follows a service that is to end


@pytest.fixture
def page(service, open_page):
    return open_page(service)


def test_a_project_and_its_tasks_by_keyboard(page, side):
    page.find("#new-project input").send_keys("Garden", Keys.ENTER)
    page.shows("h2", "Garden")
    assert page.find("#empty").is_displayed() is False
    # Where one was, to go on; and then on by Tab: the button, Delete, the new task.
    assert page.focused() == page.find("#new-project input")
    page.type(Keys.TAB)
    page.type(Keys.TAB)
    assert page.focused().accessible_name == "Delete project Garden"
    page.type(Keys.TAB)
    page.type("Water #daily the roses #flowers", Keys.ENTER)
    page.shows(".title", "Water the roses")
    page.type("Sow", Keys.ENTER)
    page.shows(".title", "Water the roses", "Sow")
    page.shows(".tag", "daily", "flowers")
    page.shows(".count", "0 of 2 done")

    page.find(".task input").send_keys(Keys.SPACE)
    page.shows(".count", "1 of 2 done")
    page.shows(".done .title", "Water the roses")
    stored = "SELECT title, tags, done_at IS NOT NULL FROM task ORDER BY created_at"
    assert rows(side, stored) == [
        ("Water the roses", ["daily", "flowers"], True),
        ("Sow", [], False),
    ]

    page.find(".task button").send_keys(Keys.ENTER)
    page.shows(".title", "Sow")
    assert page.focused().accessible_name == "Delete task Sow"
    assert rows(side, stored) == [("Sow", [], False)]
    assert page.severe() == []


def test_a_project_is_deleted_after_a_question(page, service, side):
    project = service.post("/api/projects", {"name": "Garden"}).json()
    service.post(f"/api/projects/{project['id']}/tasks", {"title": "Sow"})
    page.shows(".title", "Sow")
    page.find(".heading button").click()
    page.browser.switch_to.alert.dismiss()
    assert page.texts("h2") == ["Garden"]
    page.find(".heading button").click()
    page.browser.switch_to.alert.accept()
    page.wait(lambda: page.find("#empty").is_displayed())
    assert rows(side, "SELECT name FROM project") == []


def test_what_is_refused_is_told_at_its_field(page, service):
    field, error = page.find("#new-project input"), page.find("#new-project .error")
    service.post("/api/projects", {"name": "Garden"})
    page.shows("h2", "Garden")
    field.send_keys("Garden", Keys.ENTER)
    page.shows("#new-project .error", "There is a project of this name already.")
    assert error.get_attribute("role") == "alert"
    assert field.get_attribute("aria-invalid") == "true"
    assert page.focused() == field
    assert field.get_attribute("value") == "Garden"
    field.send_keys(" 2")
    assert (error.text, field.get_attribute("aria-invalid")) == ("", None)
    field.send_keys(Keys.ENTER)
    page.shows("h2", "Garden", "Garden 2")
    page.find(".project form input").send_keys(" ", Keys.ENTER)
    page.wait(lambda: page.find(".project form .error").text)


def test_changes_of_others_are_shown_and_disturb_nobody(page, service, side):
    project = service.post("/api/projects", {"name": "Garden"}).json()
    page.shows("h2", "Garden")
    field = page.find(".project form input")
    field.send_keys("half writ")
    rows(
        side,
        "INSERT INTO task (id, project_id, title, due) VALUES (gen_random_uuid(), %s, %s, %s)",
        (project["id"], HOSTILE, dt.date(2020, 2, 28)),
    )
    page.shows(".title", HOSTILE)
    assert page.texts("time")[0].endswith(", overdue")
    assert page.find("time").get_attribute("datetime") == "2020-02-28"
    rows(side, "UPDATE task SET done_at = now()")
    page.shows(".done .title", HOSTILE)
    rows(side, "UPDATE project SET name = 'Meadow'")
    page.shows("h2", "Meadow")
    assert page.focused() == field
    field.send_keys("ten", Keys.ENTER)
    page.shows(".title", HOSTILE, "half written")
    assert page.browser.title == "Tasks"
    assert page.severe() == []


def test_it_tells_when_the_service_is_gone_and_comes_back(open_page, dsn):
    with running("fastapi_tasks", dsn) as service:
        page = open_page(service)
        assert service.stop() == ""
    page.wait(lambda: page.texts("#state")[0].startswith("Offline"))
    page.find("#new-project input").send_keys("Garden", Keys.ENTER)
    page.shows("#new-project .error", "The service does not answer.")
    with running("fastapi_tasks", dsn, service.port):
        page.shows("#state", "Live")
        page.find("#new-project input").send_keys(Keys.ENTER)
        page.shows("h2", "Garden")


def test_pages_that_were_left_hold_no_connection(page, service, side):
    # A browser has six connections to a service, and keeps pages for "Back".
    for _ in range(7):
        page.browser.get("about:blank")
        page.browser.get(service.url)
        page.shows("#state", "Live")
    page.browser.get("about:blank")
    page.browser.back()
    page.shows("#state", "Live")
    service.post("/api/projects", {"name": "Garden"})
    page.shows("h2", "Garden")


def test_narrow_screens_need_no_scrolling_sideways(page, service):
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True},
    )
    project = service.post("/api/projects", {"name": "W" * 100}).json()
    task = {"title": "M" * 100, "tags": ["tag" * 30], "due": "2030-01-01"}
    service.post(f"/api/projects/{project['id']}/tasks", task)
    page.shows(".title", "M" * 100)
    width = page.browser.execute_script("return document.documentElement.scrollWidth")
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width == 320


def test_everything_that_is_used_has_a_name(page, service):
    project = service.post("/api/projects", {"name": "Garden"}).json()
    service.post(f"/api/projects/{project['id']}/tasks", {"title": "Sow", "tags": ["spring"]})
    page.shows(".title", "Sow")
    elements = page.browser.find_elements(By.CSS_SELECTOR, "input, button, a, section, progress")
    assert [element.accessible_name for element in elements] == [
        "Export as CSV",
        "New project",
        "Add project",
        "Garden",
        "Delete project Garden",
        "Done in Garden",
        "Sow spring",
        "Delete task Sow",
        "New task, with #tags",
        "Due",
        "Add task",
    ]
