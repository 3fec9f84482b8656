// Makes a QuPath project of all slides of this cohort, with their annotations, in the folder qupath/ beside this file.
// In QuPath 0.5 to 0.7: Automate > Script editor, open this file, Run. Or, without a window: QuPath script open-in-qupath.groovy
//
// Running it again adds the slides that are not in the project yet; what was changed in it stays.

import java.awt.image.BufferedImage
import java.nio.file.Files
import java.nio.file.Path
import javafx.application.Platform
import qupath.fx.dialogs.FileChoosers
import qupath.lib.gui.scripting.QPEx
import qupath.lib.images.ImageData
import qupath.lib.images.servers.ImageServerProvider
import qupath.lib.io.PathIO
import qupath.lib.projects.ProjectIO
import qupath.lib.projects.Projects

def scriptFile() {
    try {
        return binding.getVariable('qupath.script.file')
    } catch (MissingPropertyException ignored) {
        return null  // the script was pasted, not opened
    }
}

def path = scriptFile()
def folder = path == null ? FileChoosers.promptForDirectory('Folder of the cohort', null) : new File(path.toString()).getParentFile()
if (folder == null)
    return
Path slides = folder.toPath().resolve('slides')
if (!Files.isDirectory(slides)) {
    println 'wsigen: no folder ' + slides + '; this script belongs into the folder of a cohort'
    return
}

def home = new File(folder, 'qupath')
home.mkdirs()
def file = new File(home, 'project' + ProjectIO.getProjectExtension(true))
def project = file.isFile() ? ProjectIO.loadProject(file, BufferedImage.class) : Projects.createProject(file, BufferedImage.class)
def known = project.getImageList().collect { it.getImageName() } as Set
def images = slides.toFile().listFiles().findAll { it.getName().endsWith('.ome.tiff') }.sort { it.getName() }
def added = 0
images.each { image ->
    def name = image.getName()
    if (known.contains(name))
        return
    def support = ImageServerProvider.getPreferredUriImageSupport(BufferedImage.class, image.toURI().toString())
    if (support == null || support.getBuilders().isEmpty()) {
        println 'wsigen: QuPath cannot open ' + name
        return
    }
    def entry = project.addImage(support.getBuilders().get(0))
    entry.setImageName(name)
    entry.putMetadataValue('synthetic', 'true')
    def imageData = entry.readImageData()
    imageData.setImageType(ImageData.ImageType.BRIGHTFIELD_H_E)
    def annotations = slides.resolve(name.replaceAll(/\.ome\.tiff$/, '.geojson'))
    if (Files.isRegularFile(annotations))
        imageData.getHierarchy().addObjects(PathIO.readObjects(annotations))
    entry.saveImageData(imageData)
    imageData.getServer().close()
    added++
    println 'wsigen: ' + name
}
project.syncChanges()
println 'wsigen: ' + added + ' slides added to ' + file

def gui = QPEx.getQuPath()
if (gui != null)
    Platform.runLater { gui.setProject(project) }
