# Run by cpack between installing the programs into the package's tree and packing it: what belongs to Debian and not to
# `cmake --install`. /etc is the administrator's, and lies outside the prefix there.
set(here ${CMAKE_CURRENT_LIST_DIR})
# file(INSTALL) goes there by itself, which cpack names in DESTDIR.
set(tree ${CPACK_TEMPORARY_INSTALL_DIRECTORY})
set(doc ${tree}/usr/share/doc/livenps)

file(INSTALL ${here}/../../config/livenps.yaml DESTINATION /etc/livenps)
file(INSTALL ${here}/../livenps.env DESTINATION /etc/livenps PERMISSIONS OWNER_READ OWNER_WRITE)
file(GLOB units ${here}/../*.service)
file(INSTALL ${units} DESTINATION /usr/lib/systemd/system)
file(INSTALL ${here}/../secrets.conf DESTINATION /usr/share/doc/livenps/examples)
file(INSTALL ${here}/copyright DESTINATION /usr/share/doc/livenps)
file(REMOVE ${doc}/LICENSE) # the distribution has one copy for all

# The same sources make the same package, byte for byte: its time is that of the last commit, or what the caller says.
if(NOT DEFINED ENV{SOURCE_DATE_EPOCH})
  execute_process(COMMAND git -C ${here} log -1 --format=%ct OUTPUT_VARIABLE epoch OUTPUT_STRIP_TRAILING_WHITESPACE
                  ERROR_QUIET)
  if(epoch)
    set(ENV{SOURCE_DATE_EPOCH} ${epoch})
  endif()
endif()
string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC)
file(WRITE ${doc}/changelog.Debian
  "livenps (${CPACK_PACKAGE_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE}) unstable; urgency=medium\n\n"
  "  * What has changed: CHANGELOG.md beside this file.\n\n"
  " -- ${CPACK_PACKAGE_CONTACT}  ${date}\n")
file(GLOB packed ${tree}/usr/share/man/man1/*.1 ${doc}/changelog.Debian)
execute_process(COMMAND gzip -9 -n ${packed} COMMAND_ERROR_IS_FATAL ANY)
