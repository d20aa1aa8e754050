-- Sin Pluma: people write notebooks of pages, read each other's, and tag them.
-- One statement ends at each semicolon at the end of a line.

CREATE TABLE genre (
    id SMALLINT UNSIGNED NOT NULL AUTO_INCREMENT,
    slug VARCHAR(40) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL,
    name VARCHAR(80) NOT NULL,
    description TEXT,
    PRIMARY KEY (id),
    UNIQUE KEY genre_slug (slug)
) COMMENT = 'the ten kinds that a notebook may be of';

CREATE TABLE user (
    id INT UNSIGNED NOT NULL AUTO_INCREMENT,
    handle VARCHAR(40) NOT NULL,
    email VARCHAR(190) NOT NULL,
    display_name VARCHAR(120) NOT NULL,
    biography TEXT,
    password_hash BINARY(32) NOT NULL,
    locale CHAR(5) CHARACTER SET ascii NOT NULL DEFAULT 'en',
    role ENUM('reader', 'writer', 'editor', 'admin') NOT NULL DEFAULT 'reader',
    settings SET('newsletter', 'dark', 'public', 'beta') NOT NULL DEFAULT 'public',
    born DATE,
    is_active BIT(1) NOT NULL DEFAULT b'1',
    created_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    PRIMARY KEY (id),
    UNIQUE KEY user_handle (handle),
    UNIQUE KEY user_email (email)
);

CREATE TABLE notebook (
    id INT UNSIGNED NOT NULL AUTO_INCREMENT,
    user_id INT UNSIGNED NOT NULL,
    genre_id SMALLINT UNSIGNED,
    title VARCHAR(200) NOT NULL,
    synopsis TEXT,
    cover MEDIUMBLOB,
    visibility ENUM('private', 'link', 'public') NOT NULL DEFAULT 'private',
    price DECIMAL(8, 2),
    created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    PRIMARY KEY (id),
    KEY notebook_user (user_id, updated_at),
    KEY notebook_genre (genre_id),
    FULLTEXT KEY notebook_text (title, synopsis),
    CONSTRAINT notebook_of_user FOREIGN KEY (user_id) REFERENCES user (id) ON DELETE CASCADE,
    CONSTRAINT notebook_of_genre FOREIGN KEY (genre_id) REFERENCES genre (id) ON DELETE SET NULL
);

CREATE TABLE page (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    notebook_id INT UNSIGNED NOT NULL,
    position INT NOT NULL,
    title VARCHAR(200),
    content JSON NOT NULL,
    draft LONGTEXT,
    word_count INT GENERATED ALWAYS AS (CAST(JSON_EXTRACT(content, '$.words') AS SIGNED)) STORED,
    language VARCHAR(8) GENERATED ALWAYS AS (JSON_UNQUOTE(JSON_EXTRACT(content, '$.lang'))) VIRTUAL,
    mood DOUBLE,
    edited_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY page_place (notebook_id, position),
    KEY page_language (language),
    CONSTRAINT page_of_notebook FOREIGN KEY (notebook_id) REFERENCES notebook (id) ON DELETE CASCADE,
    CONSTRAINT page_place_is_positive CHECK (position > 0)
);

CREATE TABLE reading (
    user_id INT UNSIGNED NOT NULL,
    page_id BIGINT UNSIGNED NOT NULL,
    progress FLOAT NOT NULL DEFAULT 0,
    stars TINYINT UNSIGNED,
    time_spent TIME(2),
    note VARCHAR(500),
    started_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    finished_at DATETIME(6),
    PRIMARY KEY (user_id, page_id),
    KEY reading_page (page_id, finished_at),
    CONSTRAINT reading_by_user FOREIGN KEY (user_id) REFERENCES user (id) ON DELETE CASCADE,
    CONSTRAINT reading_of_page FOREIGN KEY (page_id) REFERENCES page (id) ON DELETE CASCADE
);

CREATE TABLE tags (
    id INT UNSIGNED NOT NULL AUTO_INCREMENT,
    label VARCHAR(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    first_used YEAR,
    PRIMARY KEY (id),
    UNIQUE KEY tags_label (label)
);

CREATE TABLE has_tags (
    notebook_id INT UNSIGNED NOT NULL,
    tag_id INT UNSIGNED NOT NULL,
    tagged_by INT UNSIGNED,
    tagged_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (notebook_id, tag_id),
    KEY has_tags_tag (tag_id),
    KEY has_tags_by (tagged_by),
    CONSTRAINT has_tags_notebook FOREIGN KEY (notebook_id) REFERENCES notebook (id) ON DELETE CASCADE,
    CONSTRAINT has_tags_tag_id FOREIGN KEY (tag_id) REFERENCES tags (id) ON DELETE CASCADE,
    CONSTRAINT has_tags_by_user FOREIGN KEY (tagged_by) REFERENCES user (id) ON DELETE SET NULL
);

INSERT INTO genre (slug, name, description) VALUES
    ('novel', 'Novel', 'Long prose, many chapters'),
    ('short-story', 'Short story', 'Read in one sitting'),
    ('poetry', 'Poetry', 'Verse, free or bound'),
    ('essay', 'Essay', NULL),
    ('memoir', 'Memoir', 'A life, or a piece of one'),
    ('fantasy', 'Fantasy', 'Dragons, mostly'),
    ('science-fiction', 'Science fiction', 'What if?'),
    ('mystery', 'Mystery', 'Somebody did it'),
    ('drama', 'Drama', 'For the stage'),
    ('journal', 'Journal', '');
