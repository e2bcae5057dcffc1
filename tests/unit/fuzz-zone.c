/*
 * Fuzz targets for zones: what runs them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "fuzz-zone.h"

#ifdef CONFIG_FUZZ

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_zone_init();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_zone_input(data, size);
    return 0;
}

#else

static void run_file(gconstpointer path)
{
    g_autofree char *data = NULL;
    g_autoptr(GError) error = NULL;
    gsize size;

    g_file_get_contents(path, &data, &size, &error);
    g_assert_no_error(error);
    fuzz_zone_input((uint8_t *)data, size);
}

/* A test for each file of the directory @path */
static void add_directory(const char *path)
{
    g_autoptr(GError) error = NULL;
    GDir *dir = g_dir_open(path, 0, &error);
    const char *name;

    g_assert_no_error(error);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *test = g_strdup_printf("/fuzz/%s", name);

        g_test_add_data_func_full(test, g_build_filename(path, name, NULL),
                                  run_file, g_free);
    }
    g_dir_close(dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fuzz_zone_init();
    for (int i = 1; i < argc; i++) {
        if (g_file_test(argv[i], G_FILE_TEST_IS_DIR)) {
            add_directory(argv[i]);
        } else {
            run_file(argv[i]);
        }
    }
    return g_test_run();
}

#endif
