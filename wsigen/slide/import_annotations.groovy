// Imports the annotations of a slide made by wsigen. In QuPath: open the slide, then Automate > Script
// editor, open this file and Run (Run for project handles many slides). For QuPath 0.5 to 0.7.
//
// X.geojson must lie in the same folder as X.ome.tiff (or X.svs). Running it again replaces the objects imported before.

import static qupath.lib.gui.scripting.QPEx.*
import qupath.lib.images.ImageData
import qupath.lib.io.PathIO
import java.nio.file.Files
import java.nio.file.Paths

def imageData = getCurrentImageData()
if (imageData == null) {
    println 'wsigen: no image is open; open the slide first'
    return
}
imageData.setImageType(ImageData.ImageType.BRIGHTFIELD_H_E)

def uris = imageData.getServer().getURIs()
if (uris.isEmpty() || uris[0].getScheme() != 'file') {
    println 'wsigen: this image is not a local file, so no annotations can be found beside it'
    return
}
def image = Paths.get(new URI('file', null, uris[0].getPath(), null))
def base = image.getFileName().toString().replaceAll(/(?i)(\.ome\.tiff?|\.[^.]+)$/, '')
def candidates = [base + '.geojson', base + '.geojson.gz'].collect { image.resolveSibling(it) }
def found = candidates.find { Files.isRegularFile(it) }
if (found == null) {
    println 'wsigen: no annotations found; expected ' + candidates[0] + ' (same folder and name as the slide)'
    return
}

def objects = PathIO.readObjects(found)
def ids = objects.collect { it.getID() } as Set
removeObjects(getAllObjects(false).findAll { ids.contains(it.getID()) }, true)
addObjects(objects)
fireHierarchyUpdate()
println 'wsigen: imported ' + objects.size() + ' annotations from ' + found
