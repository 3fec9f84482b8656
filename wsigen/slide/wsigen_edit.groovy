// Makes the selected annotations of the open slide anew with wsigen, and opens the result in the same viewer.
// In QuPath 0.5 to 0.7: draw annotations, give them classes of the model, select them (Ctrl or Cmd for several); then
// Automate > Script editor, open this file, Run. The slide stays as it is: SLIDE.edit-1.ome.tiff is written beside it.
//
// Where wsigen is installed is asked once, if it is not found. WSIGEN_EDIT below says what else may be chosen.

import groovy.transform.Field
import java.awt.image.BufferedImage
import java.nio.file.Files
import java.nio.file.Paths
import java.util.concurrent.atomic.AtomicBoolean
import javafx.application.Platform
import javafx.scene.control.ButtonType
import javafx.scene.control.Dialog
import javafx.scene.control.Label
import javafx.scene.control.ProgressBar
import javafx.scene.layout.VBox
import javafx.stage.Modality
import qupath.fx.dialogs.Dialogs
import qupath.fx.dialogs.FileChoosers
import qupath.fx.utils.FXUtils
import qupath.lib.gui.prefs.PathPrefs
import qupath.lib.gui.scripting.QPEx
import qupath.lib.images.ImageData
import qupath.lib.images.servers.ImageServerProvider
import qupath.lib.images.servers.TransformingImageServer
import qupath.lib.io.PathIO

@Field final List<String> WSIGEN_EDIT = ['--strength', '1.0', '--margin-um', '100']  // strength 1: made anew; less: altered

@Field final String WRITTEN_ANEW = 'give the new slide a name in .ome.tiff'  // wsigen says so of formats that it cannot edit in place

def gui = QPEx.getQuPath()
def viewer = QPEx.getCurrentViewer()
def imageData = viewer?.getImageData()
def slide = imageData == null ? null : slideOf(imageData)
def problem = problemOf(imageData, slide)
if (problem != null) {
    refuse(problem)
    return
}
def wsigen = installation()
if (wsigen == null) {
    refuse('without the program wsigen nothing can be made; run the script again to say where it is')
    return
}
def output = nextVersion(slide, null)
def regions = Files.createTempFile('wsigen', '.geojson')
try {
    PathIO.exportObjectsAsGeoJSON(regions, selected(imageData), PathIO.GeoJsonExportOptions.FEATURE_COLLECTION)
    def failure = edit(wsigen, slide, regions, output, gui.getStage())
    if (failure?.contains(WRITTEN_ANEW)) {
        output = nextVersion(slide, '.ome.tiff')
        failure = edit(wsigen, slide, regions, output, gui.getStage())
    }
    if (failure != null)
        refuse(failure)
    else if (viewer.getImageData() != imageData || !FXUtils.callOnApplicationThread { show(gui, viewer, output) })
        say('the new version is ' + output)
    else
        println 'wsigen: ' + output
} finally {
    Files.deleteIfExists(regions)
}

/** Why nothing can be done with this image and its selection, or null. */
def problemOf(imageData, slide) {
    if (imageData == null)
        return 'no image is open; open a slide first'
    if (slide == null || !slide.isFile())
        return 'this image is not a file on this computer'
    if (imageData.getServer() instanceof TransformingImageServer)
        return 'this image is rotated, cropped or transformed, so its places are not those of the file; open the file itself'
    def chosen = selected(imageData)
    if (chosen.isEmpty())
        return 'select annotations with an area, such as polygons; they say what is made anew'
    def nameless = chosen.count { !it.getPathClass()?.getName() }
    return nameless == 0 ? null : nameless + ' of ' + chosen.size() + ' annotations have no class; set it: it says what is made there'
}

def selected(imageData) {
    def objects = imageData.getHierarchy().getSelectionModel().getSelectedObjects()
    return objects.findAll { it.isAnnotation() && it.hasROI() && it.getROI().isArea() }
}

/** The file of an image, or null. */
def slideOf(imageData) {
    def uris = imageData.getServer().getURIs()
    if (uris.size() != 1 || uris[0].getScheme() != 'file')
        return null
    return Paths.get(new URI('file', null, uris[0].getPath(), null)).toFile()
}

/** Make the regions anew in a new file; what went wrong, or null. Of an edit that was not finished nothing is kept. */
def edit(wsigen, File slide, regions, File output, owner) {
    def number = (output.getName() =~ /\.edit-(\d+)\./)[0][1]  // the seed, so that the same place comes out otherwise each time
    def command = [wsigen.toString(), 'edit', slide.toString(), '--regions', regions.toString(), '--output', output.toString(),
        '--seed', number, '--log', 'text'] + WSIGEN_EDIT
    def failure = execute(command, owner, output.getName())
    if (failure != null)
        new File(output.getParentFile(), output.getName().replaceFirst(/(\.edit-\d+)\..*$/, '$1.edit')).deleteDir()
    return failure
}

/**
 * The first SLIDE.edit-N beside a slide that is not there yet; an edit of an edit counts on. Those of a cohort lie in edits/.
 * It ends as the slide does, or as is said.
 */
def nextVersion(File slide, String otherEnding) {
    def folder = slide.getParentFile()
    if (new File(folder.getParentFile(), 'cohort.csv').isFile()) {
        folder = new File(folder.getParentFile(), 'edits')
        folder.mkdir()
    }
    def parts = slide.getName() =~ /(?i)^(.+?)(?:\.edit-\d+)?((?:\.ome)?\.[^.]+)$/
    def (base, own) = parts.find() ? [parts.group(1), parts.group(2)] : [slide.getName(), '.ome.tiff']
    def ending = otherEnding ?: own
    def name = { number, end -> new File(folder, base + '.edit-' + number + end) }
    def number = 1
    while (name(number, ending).exists() || name(number, '.edit').exists())  // the folder of an edit that was stopped
        number++
    return name(number, ending)
}

/** The program: from the preferences, from PATH, or asked for; null if there is none. */
def installation() {
    def kept = PathPrefs.createPersistentPreference('wsigen.program', '')
    def names = System.getProperty('os.name').startsWith('Windows') ? ['wsigen.exe'] : ['wsigen']
    def folders = (System.getenv('PATH') ?: '').split(File.pathSeparator).toList() + [System.getProperty('user.home') + '/.local/bin']
    def known = [kept.get()] + [folders, names].combinations().collect { folder, name -> new File(folder, name).toString() }
    def found = known.find { it && new File(it).isFile() && new File(it).canExecute() }
    if (found == null)
        found = FileChoosers.promptForFile('Where is wsigen? (folder bin or Scripts of its environment)')?.toString()
    if (found != null)
        kept.set(found)
    return found
}

/** Run a command with its progress in a window; what went wrong, or null. */
def execute(List<String> command, owner, String title) {
    def process = new ProcessBuilder(command).redirectErrorStream(true).start()
    process.getOutputStream().close()
    def cancelled = new AtomicBoolean(false)
    def over = new AtomicBoolean(false)
    def window = FXUtils.callOnApplicationThread {
        progressWindow(owner, title) {
            if (!over.get()) {
                cancelled.set(true)
                stop(process)
            }
        }
    }
    def last = ''
    process.getInputStream().eachLine('UTF-8') { line ->
        if (line.isBlank())
            return
        last = line.trim()
        println last
        if (window != null)
            tell(window, last)
    }
    def code = process.waitFor()
    over.set(true)
    if (window != null)
        FXUtils.callOnApplicationThread { window.dialog.close() }
    if (cancelled.get())
        return 'cancelled; nothing was changed'
    return code == 0 ? null : last ?: 'wsigen ended with code ' + code
}

def progressWindow(owner, String title, Runnable cancel) {
    def label = new Label('wsigen begins')
    label.setWrapText(true)
    label.setPrefWidth(420)
    def bar = new ProgressBar(-1)
    bar.setPrefWidth(420)
    def dialog = new Dialog()
    dialog.initOwner(owner)
    dialog.initModality(Modality.NONE)
    dialog.setTitle(title)
    dialog.getDialogPane().setContent(new VBox(10, label, bar))
    dialog.getDialogPane().getButtonTypes().setAll(ButtonType.CANCEL)
    dialog.setOnHidden { cancel.run() }
    dialog.show()
    return [dialog: dialog, label: label, bar: bar]
}

/** Show a line of wsigen, such as 'RUN  denoise (0.7 um/px): 34 %  12/35 tasks  20 s left'. */
def tell(window, String line) {
    def share = line =~ /(\d+) %/
    def done = share.find() ? share.group(1).toInteger() / 100d : -1d
    Platform.runLater {
        window.label.setText(line.replaceFirst(/^\S+  /, ''))
        window.bar.setProgress(done)
    }
}

/** End wsigen and its workers: as Ctrl-C does where that is known, so that they can tidy up. */
def stop(Process process) {
    if (System.getProperty('os.name').startsWith('Windows')) {
        process.descendants().each { it.destroy() }
        process.destroy()
    } else {
        new ProcessBuilder('kill', '-INT', process.pid().toString()).start()
    }
}

/** Open a slide with its annotations in a viewer, at the place that is seen now; false if its user did not want that. */
def show(gui, viewer, File slide) {
    def place = [viewer.getDownsampleFactor(), viewer.getCenterPixelX(), viewer.getCenterPixelY()]
    def opened
    if (gui.getProject() == null) {
        opened = gui.openImage(viewer, slide.toString(), true, false)
        if (opened)
            complete(viewer.getImageData(), slide)
    } else {
        gui.getViewerManager().setActiveViewer(viewer)
        opened = gui.openImageEntry(entryOf(gui.getProject(), slide))
        gui.refreshProject()
    }
    if (opened) {
        viewer.setDownsampleFactor(place[0], -1, -1)
        viewer.setCenterPixelLocation(place[1], place[2])
    }
    return opened
}

def entryOf(project, File slide) {
    def support = ImageServerProvider.getPreferredUriImageSupport(BufferedImage.class, slide.toURI().toString())
    def entry = project.addImage(support.getBuilders().get(0))
    entry.setImageName(slide.getName())
    def imageData = entry.readImageData()
    complete(imageData, slide)
    entry.saveImageData(imageData)
    imageData.getServer().close()
    project.syncChanges()
    return entry
}

/** Give a new image its type and the annotations that lie beside it. */
def complete(imageData, File slide) {
    imageData.setImageType(ImageData.ImageType.BRIGHTFIELD_H_E)
    def annotations = new File(slide.getParentFile(), slide.getName().replaceAll(/(?i)(\.ome)?\.[^.]+$/, '.geojson'))
    if (annotations.isFile())
        imageData.getHierarchy().addObjects(PathIO.readObjects(annotations))
}

def say(String text) {
    println 'wsigen: ' + text
    Dialogs.showPlainNotification('wsigen', text)
}

def refuse(String text) {
    println 'wsigen: ' + text
    Dialogs.showErrorMessage('wsigen', text)
}
