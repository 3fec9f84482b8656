"""What scripts for QuPath call, as far as they call it, for a Groovy without QuPath.

The signatures are those of QuPath's sources at 0.5.0, 0.5.1, 0.6.0 and 0.7.0, of QuPath Fxtras at 0.1.3, 0.1.4, 0.2.0 and 0.3.0
(dialogs, threads), and of JavaFX. Calls that a person would notice are printed as ``CALL ...``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SOURCES = {
    "javafx.application.Platform": "class Platform { static void runLater(Runnable act) { act.run() } }",
    "javafx.stage.Modality": "enum Modality { NONE, APPLICATION_MODAL }",
    "javafx.scene.control.ButtonType": "class ButtonType { static final ButtonType CANCEL = new ButtonType() }",
    "javafx.scene.control.Label": """class Label {
        Label(String text) {}
        void setText(String text) { println 'CALL label ' + text }
        void setWrapText(boolean on) {}
        void setPrefWidth(double px) {} }""",
    "javafx.scene.control.ProgressBar": """class ProgressBar {
        ProgressBar(double share) {}
        void setProgress(double share) { println 'CALL bar ' + share }
        void setPrefWidth(double px) {} }""",
    "javafx.scene.layout.VBox": "class VBox { VBox(double gap, Object... nodes) {} }",
    "javafx.event.EventHandler": "interface EventHandler { void handle(Object event) }",
    "javafx.scene.control.Dialog": """class Dialog {
        javafx.event.EventHandler hidden
        def pane = new Pane()
        void initOwner(owner) {}
        void initModality(javafx.stage.Modality modality) {}
        void setTitle(String title) { println 'CALL window ' + title }
        def getDialogPane() { pane }
        void setOnHidden(javafx.event.EventHandler handler) { hidden = handler }
        void show() { if (System.getenv('STUB_CANCEL')) Thread.start { sleep(1500); hidden.handle(null) } }
        void close() { println 'CALL closed'; hidden.handle(null) }
        static class Pane {
            List<ButtonType> types = new Types()
            void setContent(node) {}
            List<ButtonType> getButtonTypes() { types } }
        static class Types extends ArrayList<ButtonType> { boolean setAll(ButtonType... all) { clear(); addAll(all) } } }""",
    "qupath.fx.utils.FXUtils": """class FXUtils {
        static <T> T callOnApplicationThread(java.util.concurrent.Callable<T> act) { act.call() } }""",
    "qupath.fx.dialogs.Dialogs": """class Dialogs {
        static void showErrorMessage(String title, String text) { println 'CALL error ' + text }
        static void showPlainNotification(String title, String text) { println 'CALL said ' + text } }""",
    "qupath.fx.dialogs.FileChoosers": """class FileChoosers {
        static File promptForFile(String title, Object... filters) {
            println 'CALL asked ' + title
            System.getenv('STUB_CHOSEN') ? new File(System.getenv('STUB_CHOSEN')) : null }
        static File promptForDirectory(String title, File folder) {
            println 'CALL asked ' + title
            System.getenv('STUB_CHOSEN') ? new File(System.getenv('STUB_CHOSEN')) : null } }""",
    "qupath.lib.gui.prefs.PathPrefs": """class PathPrefs {
        static Kept createPersistentPreference(String name, String other) { new Kept(other: other) }
        static class Kept {
            String other
            String get() { System.getenv('STUB_KEPT') ?: other }
            void set(String value) { println 'CALL kept ' + value } } }""",
    "qupath.lib.images.servers.TransformingImageServer": """class TransformingImageServer extends FileServer {
        TransformingImageServer(File file) { super(file) } }""",
    "qupath.lib.images.servers.FileServer": """class FileServer implements AutoCloseable {
        Collection<URI> uris
        FileServer(File file) { uris = [file.toURI()] }
        Collection<URI> getURIs() { uris }
        void close() {} }""",
    "qupath.lib.images.servers.ImageServerProvider": """class ImageServerProvider {
        static Support getPreferredUriImageSupport(Class type, String path, String... more) { new Support(path: path) }
        static class Support {
            String path
            List getBuilders() { new File(URI.create(path)).isFile() ? [path] : [] } } }""",
    "qupath.lib.images.ImageData": """class ImageData {
        enum ImageType { BRIGHTFIELD_H_E, UNSET }
        def server, hierarchy = new qupath.lib.objects.Hierarchy()
        ImageData(File file) { server = new qupath.lib.images.servers.FileServer(file) }
        def getServer() { server }
        def getHierarchy() { hierarchy }
        void setImageType(ImageType type) { println 'CALL type ' + type } }""",
    "qupath.lib.objects.Hierarchy": """class Hierarchy {
        Set selected = []
        def getSelectionModel() { this }
        Set getSelectedObjects() { selected }
        boolean addObjects(Collection objects) { println 'CALL added ' + objects.size(); true } }""",
    "qupath.lib.objects.Area": """class Area {
        String name
        boolean area = true
        boolean isAnnotation() { true }
        boolean hasROI() { true }
        def getROI() { this }
        boolean isArea() { area }
        UUID getID() { new UUID(1, 2) }
        def getPathClass() { name == null ? null : this } }""",
    "qupath.lib.io.PathIO": """class PathIO {
        enum GeoJsonExportOptions { PRETTY_JSON, EXCLUDE_MEASUREMENTS, FEATURE_COLLECTION }
        static void exportObjectsAsGeoJSON(java.nio.file.Path path, Collection objects, GeoJsonExportOptions... options) {
            path.toFile().text = options*.name().join() + objects*.name.join(',') }
        static List readObjects(File file) { file.readLines() }
        static List readObjects(java.nio.file.Path file) { [new qupath.lib.objects.Area(name: 'Tumor')] } }""",
    "qupath.lib.projects.ProjectIO": """class ProjectIO {
        static String getProjectExtension(boolean dot) { '.qpproj' }
        static Project loadProject(File file, Class type) { new Project() } }""",
    "qupath.lib.projects.Projects": "class Projects { static Project createProject(File file, Class type) { new Project() } }",
    "qupath.lib.projects.Project": """class Project {
        List images = []
        List getImageList() { images }
        Entry addImage(builder) { println 'CALL entry'; def e = new Entry(file: new File(URI.create(builder))); images << e; e }
        void syncChanges() { println 'CALL saved project' }
        static class Entry {
            File file
            String name
            String getImageName() { name }
            void setImageName(String text) { name = text }
            String putMetadataValue(String key, String value) { null }
            qupath.lib.images.ImageData readImageData() { new qupath.lib.images.ImageData(file) }
            void saveImageData(qupath.lib.images.ImageData data) { println 'CALL saved ' + name } } }""",
    "qupath.lib.gui.scripting.QPEx": """class QPEx {
        static Viewer viewer = new Viewer()
        static Gui getQuPath() { System.getenv('STUB_NO_WINDOW') ? null : new Gui() }
        static Viewer getCurrentViewer() { viewer }
        static qupath.lib.images.ImageData getCurrentImageData() { viewer.imageData }
        static Collection getAllObjects(boolean root) { [] }
        static void removeObjects(Collection objects, boolean keep) {}
        static void addObjects(Collection objects) { println 'CALL added ' + objects.size() }
        static void fireHierarchyUpdate() {} }
    class Viewer {
        qupath.lib.images.ImageData imageData
        Viewer() {
            if (!System.getenv('STUB_SLIDE')) return
            def file = new File(System.getenv('STUB_SLIDE'))
            imageData = new qupath.lib.images.ImageData(file)
            if (System.getenv('STUB_ROTATED')) imageData.server = new qupath.lib.images.servers.TransformingImageServer(file)
            def names = (System.getenv('STUB_SELECTED') ?: '').split(';').findAll()
            imageData.hierarchy.selected = names.collect {
                new qupath.lib.objects.Area(name: it == '-' ? null : it, area: it != 'line') } as Set }
        double getDownsampleFactor() { 4 }
        double getCenterPixelX() { 100 }
        double getCenterPixelY() { 200 }
        void setDownsampleFactor(double by, double x, double y) { println 'CALL downsample ' + by }
        void setCenterPixelLocation(double x, double y) { println 'CALL centre ' + x + ' ' + y } }
    class Gui {
        static project = System.getenv('STUB_PROJECT') ? new qupath.lib.projects.Project() : null
        def getStage() { null }
        def getProject() { project }
        void setProject(other) { println 'CALL shows project' }
        def getViewerManager() { this }
        void setActiveViewer(Viewer viewer) {}
        void refreshProject() {}
        boolean openImage(Viewer viewer, String path, boolean prompt, boolean urls) {
            println 'CALL open ' + new File(path).name
            if (System.getenv('STUB_KEEPS')) return false
            viewer.imageData = new qupath.lib.images.ImageData(new File(path))
            true }
        boolean openImageEntry(entry) { println 'CALL open entry ' + entry.name; true } }""",
}


def compile_stubs(folder: Path) -> Path:
    """Compile the stand-ins once; the folder with their classes. Tests are skipped where no Groovy is named."""
    jar, java = os.environ.get("GROOVY_JAR"), shutil.which("java")
    if not jar or not java:
        pytest.skip("no Groovy: GROOVY_JAR names its jar (groovy-4.x or 5.x) for the tests of scripts for QuPath")
    paths = []
    for name, source in SOURCES.items():
        package, _, simple = name.rpartition(".")
        paths.append(folder / "stubs" / package.replace(".", "/") / f"{simple}.groovy")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_text(f"package {package}\n{source}\n", encoding="utf-8")
    compiler = [java, "-cp", jar, "org.codehaus.groovy.tools.FileSystemCompiler", "-d", str(folder / "classes")]
    subprocess.run([*compiler, *map(str, paths)], check=True, timeout=600)
    return folder / "classes"


def run_script(script: Path, classes: Path, folder: Path, **environment: str) -> list[str]:
    """Run a script for QuPath; what it called and printed, line by line."""
    kept: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment}
    path = f"{os.environ['GROOVY_JAR']}{os.pathsep}{classes}"
    command = [shutil.which("java") or "java", "-XX:TieredStopAtLevel=1", "-cp", path, "groovy.ui.GroovyMain", str(script)]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()
